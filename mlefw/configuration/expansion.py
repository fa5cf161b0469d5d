"""How much a configuration may become: limits that are held before aliases and references are written out.

Seven lines of YAML, each a list of ten aliases of the line before, stand for ten million values; references such as
`${model.a}` multiply alike. A text is measured as it is parsed, before anything is built of it; references are
counted as OmegaConf follows them.
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

from mlefw.configuration.hydra_internals import Container, reading
from mlefw.errors import UsageError

MAX_CHARS = 1_000_000
"""Of a YAML text, and of what aliases or references make of it; each value counts as `VALUE_CHARS` at least."""
VALUE_CHARS = 100
MAX_DEPTH = 64
"""Of containers within each other."""
MAX_CHAIN, MAX_REFERENCES = 16, 1_000
"""Of references that lead to references, and of all that are followed: OmegaConf goes through many calls for each."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Named(StringIO):
    """A text with the name of its file, which the messages of the parser give."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def load(path: Path) -> Any:
    """The plain content of a YAML file.

    Raises:
        UsageError: it would become too large.
        OSError, ValueError, yaml.YAMLError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    check(text, str(path))
    return yaml.load(text, _LOADER)


def check(text: str, name: str) -> None:
    """Hold a YAML text to the limits, aliases written out, without building anything of it.

    Args:
        text: the whole of it.
        name: of the file, for the message.

    Raises:
        UsageError: it is too long, too deep, refers to itself, or is a value alone.
        yaml.YAMLError: it is not YAML.
    """
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
                    raise UsageError(f"{name} holds {event.value[:60]!r} alone: expected settings as key: value")
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
    """Hold a setting of the command line to the limit of brackets within each other.

    Raises:
        UsageError: there are more.
    """
    if max(accumulate(((sign in "[{(") - (sign in ")}]") for sign in override), initial=0)) > MAX_DEPTH:
        raise UsageError(f"{override[:60]}… is nested too deeply: expected at most {MAX_DEPTH} brackets in each other")


@contextmanager
def bounded() -> Iterator[None]:
    """Hold whatever YAML OmegaConf reads while the block runs, and all references it follows, to the limits."""
    with reading(_measuring, _counting):
        yield


def _measuring(usual: Callable[[], Any]) -> Callable[[], Any]:
    """What makes a class of loaders that measure a text before anything is built of it."""

    def loader() -> Any:
        made: Any = usual()

        def begin(self: Any, stream: Any) -> None:
            name = str(getattr(stream, "name", "a setting"))
            text = stream if isinstance(stream, str) else stream.read()
            check(text, name)
            made.__init__(self, _Named(text, name))

        return type(made.__name__, (made,), {"__init__": begin})

    return loader


def _counting(follow: Callable[..., Any]) -> Callable[..., Any]:
    """What follows references and counts them, and the size of what they stand for."""
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
    if isinstance(value, Container):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, dict):
        return VALUE_CHARS + sum(_size(item) for item in value.values())
    if isinstance(value, list):
        return VALUE_CHARS + sum(map(_size, value))
    return max(len(str(value)), VALUE_CHARS)
