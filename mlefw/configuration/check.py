"""Checks a composed configuration against the classes it configures, and reports all mistakes at once."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter
from typing import Any, Literal

from mlefw.configuration import ranges, source_signature
from mlefw.configuration.admission import Part, admitted
from mlefw.configuration.kinds import KINDS
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

INJECTED = frozenset(
    {
        *("input_shape", "positions", "num_features", "num_tokens", "length", "eta_dim"),
        *("num_classes", "floor", "targets", "num_steps", "logger", "callbacks", "plugins", "dirpath"),
    }
)
"""Arguments that mlefw supplies as it builds a part (`run/build.py`, `run/network.py`), so that no setting has to."""

FindParameters = Callable[[Part], Mapping[str, Parameter] | None]
"""Finds the parameters of the class of a part; None if they are not known."""


def check(config: Node, known: Node, plugins: Sequence[str] = (), touched: Iterable[str] = ()) -> None:
    """Check keys against the signatures of classes, and values against annotations, defaults and ranges.

    Args:
        config: the composed and resolved configuration in plain containers.
        known: the settings of the primary YAML file: all that the top level and sections without a class may hold.
        plugins: packages admitted by `--plugin`, from which a `_target_` may come.
        touched: sections in which the command line sets something.

    Raises:
        UsageError: listing every unknown key (with the nearest spelling), wrong type, missing argument and refused
            `_target_`.
    """
    parts = admitted(config, plugins)
    problems = _check_plain(config, known)
    # An import takes seconds. What the command line sets is checked against source files first, and a mistake there is
    # reported at once.
    first = {path: part for path, part in parts.items() if path.split(".")[0] in touched}
    problems += [problem for path, part in first.items() for problem in _check_part(path, part, _source_parameters)]
    problems = problems or _check_imported(parts)
    if problems:
        # One message for each setting: a value out of its range may have a wrong type as well.
        by_setting: dict[str, str] = {}
        for problem in problems:
            by_setting.setdefault(problem.partition("=")[0], problem)
        raise UsageError("\n".join(by_setting.values()))


def _check_plain(config: Node, known: Node) -> list[str]:
    """Messages on settings outside of parts: the top level, and sections that describe no class."""
    problems = _unknown("", config, known) + ranges.problems(config)
    for key, node in config.items():
        reference = known.get(key)
        if isinstance(node, dict) and not _has_target(node):
            problems += _check_section(key, node, reference if isinstance(reference, dict) else {})
        elif isinstance(reference, dict) and reference and not isinstance(node, dict):
            problems.append(f"{key}={node}: expected settings of {key}, such as {key}.{next(iter(reference))}=…")
        elif key in known and not isinstance(node, dict) and not isinstance(reference, dict):
            problems += _check_type(key, node, reference)
    return problems


def _has_target(node: Node) -> bool:
    return "_target_" in node or any(_has_target(value) for value in node.values() if isinstance(value, dict))


def check_parts(config: Node, plugins: Sequence[str] = ()) -> None:
    """Check the parts of a configuration from a checkpoint or another file, by importing their classes.

    Args:
        config: sections in plain containers.
        plugins: packages admitted by `--plugin`, from which a `_target_` may come.

    Raises:
        UsageError: listing every unknown key, wrong type, missing argument and refused `_target_`.
    """
    parts = admitted(config, plugins)
    if problems := _check_imported(parts):
        raise UsageError("\n".join(problems))


def _check_imported(parts: Mapping[str, Part]) -> list[str]:
    """Messages on the settings of parts by their paths, from the signatures of the imported classes."""
    return [problem for path, part in parts.items() for problem in _check_part(path, part, _imported_parameters)]


def nearest(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest of some words; an empty string if none is near."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def _unknown(path: str, node: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    names = sorted(known)
    prefix = f"{path}." if path else ""
    return [
        f"unknown setting {prefix}{key}.{nearest(key, names) or ' Known here: ' + (', '.join(names) or 'none')}"
        for key in node
        if key not in names
    ]


def _source_parameters(part: Part) -> Mapping[str, Parameter] | None:
    """The parameters of the class of a part, from its source file, without an import."""
    return source_signature.parameters(part.target)


def _imported_parameters(part: Part) -> Mapping[str, Parameter]:
    """The parameters of the class of a part, from its import, with annotations.

    Raises:
        UsageError: the class is not of the kind of the part.
        Exception: whatever the import raises.
    """
    return _annotated(part.find())


def _check_section(path: str, node: Node, reference: Node) -> list[str]:
    """Messages on a section that describes no class, by comparison with the primary YAML file."""
    nested = {key: value for key, value in node.items() if isinstance(value, dict)}
    if reference:
        problems = _unknown(path, node, reference)
        for key, value in node.items():
            if key in reference and key not in nested:
                problems += _check_type(f"{path}.{key}", value, reference[key])
        return problems
    problems = [f"unknown setting {path}.{key}: this choice has no settings" for key in node if key not in nested]
    for key, value in nested.items():
        problems += _check_section(f"{path}.{key}", value, {})
    return problems


def _check_part(path: str, part: Part, find: FindParameters) -> list[str]:
    """Messages on the settings of a part and the parts within it, by the signatures of their classes."""
    try:
        parameters = find(part)
    except UsageError as error:
        return [f"{path}._target_={part.target!r} was refused: expected {error}"]
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the user's to read
        return [f"{path}._target_={part.target!r} cannot be imported: {str(error).splitlines()[0]}"]
    if parameters is None:
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    problems = [] if open_ended else _unknown(path, part.settings, known)
    for name, value in part.settings.items():
        inner = list(_parts_within(f"{path}.{name}", value))
        problems += [problem for own, one in inner for problem in _check_part(own, one, find)]
        if name in known and not inner and not accepts(known[name].annotation, value):
            problems.append(f"{path}.{name}={value!r}: expected {describe(known[name].annotation)}")
    if not KINDS[part.kind].deferred:
        lacking = [name for name, p in known.items() if p.default is Parameter.empty and name not in part.settings]
        problems += [f"{path}.{n} is missing: {part.target} needs it" for n in lacking if n not in INJECTED]
    return problems


def _parts_within(path: str, value: Any) -> Iterator[tuple[str, Part]]:
    """The parts within a setting with their paths, such as those of a list."""
    if isinstance(value, Part):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _parts_within(f"{path}.{key}", item)


@cache
def _annotated(target: Any) -> Mapping[str, Parameter]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - annotations of other people's code may not resolve; keys are checked all the same
        hints = {}
    signature = inspect.signature(target).parameters
    return {name: p.replace(annotation=hints.get(name, Any)) for name, p in signature.items()}


_INSTEAD_OF: Mapping[str, Any] = {"auto": int | Literal["auto"], "equal": list[float] | str}
"""The type of a setting whose default is a word for a rule."""


def _check_type(path: str, value: Any, default: Any) -> list[str]:
    """A message if a value is not of the type of the default; a default of None allows any value."""
    if default is None or value is None or isinstance(value, dict):
        return []
    kind: Any = float if isinstance(default, float) else type(default)
    kind = _INSTEAD_OF.get(default, kind) if isinstance(default, str) else kind
    return [] if accepts(kind, value) else [f"{path}={value!r}: expected {describe(kind)}"]


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value of a configuration is of an annotated type; annotations that are not known here accept all."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return accepts(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return any(accepts(argument, value) for argument in arguments)
    if origin is typing.Literal:
        return any(value == argument and type(value) is type(argument) for argument in arguments)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping | type):
        if issubclass(origin, tuple) or not arguments:
            return isinstance(value, list | tuple)
        return isinstance(value, list | tuple) and all(accepts(arguments[0], item) for item in value)
    return True


def describe(hint: Any) -> str:
    """An annotation in words for users: `int | None` is `a whole number or null`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(argument) for argument in arguments))
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if hint in words:
        return words[hint]
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return f"a list of {describe(arguments[0])}" if arguments else "a list"
    return "a list" if origin is not None else getattr(hint, "__name__", str(hint))
