"""Checks a composed configuration against the code it configures, and reports every mistake at once."""

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

INJECTED = frozenset({"num_features", "eta_dim", "num_classes", "floor", "targets", "logger", "callbacks", "plugins"})
"""Arguments that the composition root supplies from the data."""

Look = Callable[[Part], Mapping[str, Parameter] | None]
"""How the parameters of the class of a part are found; None where they are not."""


def check(config: Node, known: Node, plugins: Sequence[str] = (), touched: Iterable[str] = ()) -> None:
    """Compare keys with signatures and settings with annotations.

    Args:
        config: the composed configuration as plain containers.
        known: the settings of the primary YAML file, which the top level and its plain sections are held to.
        plugins: further packages that a `_target_` may come from.
        touched: sections of which a person has set something.

    Raises:
        UsageError: listing every unknown key (with the nearest spelling), wrong type, missing argument and refused
            `_target_`.
    """
    parts = admitted(config, plugins)
    problems = _plain(config, known)
    # An import takes seconds, so what a person has set is first compared with the source.
    first = {path: part for path, part in parts.items() if path.split(".")[0] in touched}
    problems += [problem for path, part in first.items() for problem in _part(path, part, _written)]
    problems = problems or [problem for path, part in parts.items() for problem in _part(path, part, _imported)]
    if problems:
        # What is out of its range is told once, though its type may be wrong as well.
        told: dict[str, str] = {}
        for problem in problems:
            told.setdefault(problem.partition("=")[0], problem)
        raise UsageError("\n".join(told.values()))


def _plain(config: Node, known: Node) -> list[str]:
    """What is wrong with settings that are those of no part."""
    problems = _unknown("", config, known) + ranges.problems(config)
    for key, node in config.items():
        reference = known.get(key)
        if isinstance(node, dict) and not _has_target(node):
            problems += _section(key, node, reference if isinstance(reference, dict) else {})
        elif isinstance(reference, dict) and reference and not isinstance(node, dict):
            problems.append(f"{key}={node}: expected settings of {key}, such as {key}.{next(iter(reference))}=…")
        elif key in known and not isinstance(node, dict) and not isinstance(reference, dict):
            problems += _like(key, node, reference)
    return problems


def _has_target(node: Node) -> bool:
    return "_target_" in node or any(_has_target(value) for value in node.values() if isinstance(value, dict))


def check_parts(config: Node, plugins: Sequence[str] = ()) -> None:
    """The same for parts that come from a file rather than from the command line.

    Raises:
        UsageError: as `check`.
    """
    parts = admitted(config, plugins)
    problems = [problem for path, part in parts.items() for problem in _part(path, part, _imported)]
    if problems:
        raise UsageError("\n".join(problems))


def nearest(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or an empty string."""
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


def _written(part: Part) -> Mapping[str, Parameter] | None:
    return source_signature.parameters(part.target)


def _imported(part: Part) -> Mapping[str, Parameter]:
    """The parameters of the class, with its annotations.

    Raises:
        UsageError: it is not one of the kind.
        Exception: whatever an import raises.
    """
    return _annotated(part.find())


def _section(path: str, node: Node, reference: Node) -> list[str]:
    """Settings beside those of parts, held to those of the primary YAML file."""
    nested = {key: value for key, value in node.items() if isinstance(value, dict)}
    if reference:
        problems = _unknown(path, node, reference)
        for key, value in node.items():
            if key in reference and key not in nested:
                problems += _like(f"{path}.{key}", value, reference[key])
        return problems
    problems = [f"unknown setting {path}.{key}: this choice has no settings" for key in node if key not in nested]
    for key, value in nested.items():
        problems += _section(f"{path}.{key}", value, {})
    return problems


def _part(path: str, part: Part, look: Look) -> list[str]:
    """What is wrong with the settings of a part, by the signature of its class."""
    try:
        parameters = look(part)
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
        inner = list(_inner(f"{path}.{name}", value))
        problems += [problem for own, one in inner for problem in _part(own, one, look)]
        if name in known and not inner and not accepts(known[name].annotation, value):
            problems.append(f"{path}.{name}={value!r}: expected {describe(known[name].annotation)}")
    if not KINDS[part.kind].deferred:
        lacking = [name for name, p in known.items() if p.default is Parameter.empty and name not in part.settings]
        problems += [f"{path}.{n} is missing: {part.target} needs it" for n in lacking if n not in INJECTED]
    return problems


def _inner(path: str, value: Any) -> Iterator[tuple[str, Part]]:
    """The parts within a setting, with their paths."""
    if isinstance(value, Part):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _inner(f"{path}.{key}", item)


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
"""What may stand where the default is a word for a rule."""


def _like(path: str, value: Any, default: Any) -> list[str]:
    """A plain setting is held to the type of its default; None says nothing."""
    if default is None or value is None or isinstance(value, dict):
        return []
    kind: Any = float if isinstance(default, float) else type(default)
    kind = _INSTEAD_OF.get(default, kind) if isinstance(default, str) else kind
    return [] if accepts(kind, value) else [f"{path}={value!r}: expected {describe(kind)}"]


def accepts(hint: Any, value: Any) -> bool:
    """Whether a plain configuration value can stand for an annotated parameter; unknown annotations accept all."""
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
    """An annotation in a user's words."""
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
