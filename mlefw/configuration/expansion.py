"""Limits on the size of a configuration, which are checked before YAML aliases and references are expanded.

Seven lines of YAML, each a list of ten aliases of the line before, stand for ten million values; references such as
`${model.a}` multiply in the same way. A text is measured as it is parsed, before any object is built of it; references
are counted as OmegaConf resolves them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from mlefw.configuration.hydra_internals import Container, patched_reading
from mlefw.errors import UsageError

MAX_CHARS = 1_000_000
"""Most characters of a YAML text with its aliases and references written out."""
VALUE_CHARS = 100
"""Least number of characters that one value counts as, because a short value costs memory, too."""
MAX_DEPTH = 64
"""Most containers within each other."""
MAX_CHAIN = 16
"""Most references in a chain of references to references: OmegaConf recurses through many calls for each."""
MAX_REFERENCES = 1_000
"""Most references that are resolved in one configuration."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Named(StringIO):
    """A text stream with the name of a file, which messages of the YAML parser contain."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def load_yaml(path: Path) -> Any:
    """The content of a YAML file in plain containers, checked by `check_size`.

    Raises:
        UsageError: the text breaks a limit.
        OSError, ValueError, yaml.YAMLError: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    check_size(text, str(path))
    return yaml.load(text, _LOADER)


def check_size(text: str, name: str) -> None:
    """Check that a YAML text stays within the limits with all aliases written out, without building an object of it.

    Args:
        text: the YAML text.
        name: the file name, for messages.

    Raises:
        UsageError: the text is too long or too deep, an alias contains itself, or the text is a single value.
        yaml.YAMLError: it is not YAML.
    """
    # Size of each anchor in characters; anchor and start of each container that is open; size so far.
    sizes, inside, size = dict[str, int](), list[tuple[str | None, int]](), len(text)
    if size <= MAX_CHARS:
        size = 0
        for event in yaml.parse(_Named(text, name), _LOADER):
            if isinstance(event, yaml.AliasEvent):
                if any(event.anchor == anchor for anchor, _ in inside):
                    raise UsageError(f"{name} holds *{event.anchor} within itself: expected settings that end")
                size += sizes.get(event.anchor, 0) + VALUE_CHARS
            elif isinstance(event, yaml.ScalarEvent):
                if event.value and not inside:
                    raise UsageError(
                        f"{name} is the single value {event.value[:60]!r}: expected settings as key: value"
                    )
                sizes[event.anchor] = max(len(event.value), VALUE_CHARS)
                size += sizes[event.anchor]
            elif isinstance(event, yaml.CollectionStartEvent):
                inside.append((event.anchor, size))
                size += VALUE_CHARS
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, start = inside.pop()
                sizes[anchor or ""] = size - start
            if len(inside) > MAX_DEPTH:
                raise UsageError(f"{name} is nested too deeply: expected at most {MAX_DEPTH} containers in each other")
            if size > MAX_CHARS:
                break
    if size > MAX_CHARS:
        raise UsageError(
            f"{name} is too large: expected at most {MAX_CHARS:,} characters with all aliases written out,"
            f" where each value counts as {VALUE_CHARS} or more"
        )


def check_depth(override: str) -> None:
    """Check that an override has at most `MAX_DEPTH` brackets within each other: Hydra's parser recurses into each.

    Raises:
        UsageError: there are more.
    """
    if max(accumulate(((sign in "[{(") - (sign in ")}]") for sign in override), initial=0)) > MAX_DEPTH:
        raise UsageError(f"{override[:60]}… is nested too deeply: expected at most {MAX_DEPTH} brackets in each other")


@contextmanager
def bounded() -> Iterator[None]:
    """Check the limits on every YAML text that OmegaConf reads, and every reference it resolves, in the block.

    Raises:
        UsageError: a text breaks a limit.
        InterpolationResolutionError: references break a limit.
    """
    with patched_reading(_measuring_loader, _counting_resolution):
        yield


def _measuring_loader(usual: Callable[[], Any]) -> Callable[[], Any]:
    """A function that returns OmegaConf's YAML loader class, extended to check each text before it is parsed."""

    def loader() -> Any:
        made: Any = usual()

        def begin(self: Any, stream: Any) -> None:
            name = str(getattr(stream, "name", "a setting"))
            text = stream if isinstance(stream, str) else stream.read()
            check_size(text, name)
            made.__init__(self, _Named(text, name))

        return type(made.__name__, (made,), {"__init__": begin})

    return loader


def _counting_resolution(follow: Callable[..., Any]) -> Callable[..., Any]:
    """OmegaConf's method that resolves a reference, extended to count references, chains, and sizes of values."""
    left, depth, count = MAX_CHARS, 0, 0

    def followed(self: Container, *given: Any, **more: Any) -> Any:
        nonlocal left, depth, count
        depth += 1
        try:
            if depth > MAX_CHAIN:
                raise InterpolationResolutionError(f"more than {MAX_CHAIN} references lead to one another")
            value = follow(self, *given, **more)
        finally:
            depth -= 1
        left, count = left - _size(value), count + 1
        if left < 0 or count > MAX_REFERENCES:
            raise InterpolationResolutionError(
                f"references stand for too much: expected at most {MAX_REFERENCES:,} to follow and {MAX_CHARS:,}"
                f" characters in all, where each value counts as {VALUE_CHARS} or more"
            )
        return value

    return followed


def _size(value: Any) -> int:
    """Characters of a value or of all values in a container, each counted as `VALUE_CHARS` or more."""
    if isinstance(value, Container):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, dict):
        return VALUE_CHARS + sum(_size(item) for item in value.values())
    if isinstance(value, list):
        return VALUE_CHARS + sum(map(_size, value))
    return max(len(str(value)), VALUE_CHARS)
