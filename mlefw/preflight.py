"""Checks a composed configuration against the code it configures, and reports every mistake at once."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from inspect import Parameter
from typing import Any, Literal

from hydra.utils import get_object

from mlefw import ranges, written_signature
from mlefw.errors import UsageError

ALLOWED = ("mlefw", "torch", "lightning", "torchmetrics")
"""Packages a `_target_` may come from; a plugin is admitted on the command line or by its entry point alone."""

PARTS = (
    *("torch.nn.Module", "torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    *("lightning.Callback", "lightning.Trainer", "lightning.pytorch.loggers.Logger"),
)
"""What of the others' classes a `_target_` may build."""

INJECTED = frozenset({"num_features", "eta_dim", "num_classes", "floor", "targets", "logger", "callbacks", "plugins"})
"""Arguments that the composition root supplies from the data."""

Look = Callable[[str, Sequence[str]], Mapping[str, Parameter] | None]
"""How the parameters of a class of some packages are found by its name; None where they are not."""

_META = {"_target_", "_partial_", "_convert_", "_recursive_"}


def check(
    config: dict[str, Any], known: dict[str, Any], plugins: Sequence[str] = (), touched: Iterable[str] = ()
) -> None:
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
    problems = _unknown("", config, known) + ranges.problems(config)
    later = []
    for key, node in config.items():
        if isinstance(node, dict):
            reference = known.get(key)
            section = (key, node, reference if isinstance(reference, dict) else {}, (*ALLOWED, *plugins))
            if _has_target(node):
                later.append(section)
            else:
                problems += _section(*section)
        elif key in known and not isinstance(known[key], dict):
            problems += _like(key, node, known[key])
    # An import takes seconds, so what a person has set is first compared with the source.
    problems += [problem for section in later if section[0] in touched for problem in _section(*section, _written)]
    problems = problems or [problem for section in later for problem in _section(*section)]
    if problems:
        # What is out of its range is told once, though its type may be wrong as well.
        told: dict[str, str] = {}
        for problem in problems:
            told.setdefault(problem.partition("=")[0], problem)
        raise UsageError("\n".join(told.values()))


def _has_target(node: dict[str, Any]) -> bool:
    return "_target_" in node or any(_has_target(value) for value in node.values() if isinstance(value, dict))


def check_targets(config: dict[str, Any], plugins: Sequence[str] = ()) -> None:
    """The same for nodes that come from a file rather than from the command line.

    Raises:
        UsageError: as `check`.
    """
    problems = [p for key, node in config.items() for p in _section(key, node, {}, (*ALLOWED, *plugins))]
    if problems:
        raise UsageError("\n".join(problems))


def nearest(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def _unknown(path: str, node: dict[str, Any], known: Iterable[str]) -> list[str]:
    names = sorted(known)
    prefix = f"{path}." if path else ""
    return [
        f"unknown setting {prefix}{key}.{nearest(key, names) or ' Known here: ' + (', '.join(names) or 'none')}"
        for key in node
        if key not in _META and key not in names
    ]


def _written(target: str, _: Sequence[str]) -> Mapping[str, Parameter] | None:
    return written_signature.parameters(target)


def _imported(target: str, allowed: Sequence[str]) -> Mapping[str, Parameter]:
    """The parameters of a class, with its annotations.

    Raises:
        UsageError: it is not one to build.
        Exception: whatever an import raises.
    """
    found = get_object(target)
    if not _is_admitted(found, allowed):
        raise UsageError(
            "a part of a training, such as a torch.nn.Module, an optimiser, a scheduler, a callback or a logger"
        )
    return _annotated(found)


def _section(
    path: str, node: dict[str, Any], reference: dict[str, Any], allowed: Sequence[str], look: Look = _imported
) -> list[str]:
    if "_target_" in node:
        return _target(path, node, allowed, look)
    nested = {key: value for key, value in node.items() if isinstance(value, dict)}
    if reference:
        problems = _unknown(path, node, reference)
        for key, value in node.items():
            if key in reference and key not in nested:
                problems += _like(f"{path}.{key}", value, reference[key])
        return problems
    problems = [f"unknown setting {path}.{key}: this choice has no settings" for key in node if key not in nested]
    for key, value in nested.items():
        problems += _section(f"{path}.{key}", value, {}, allowed, look)
    return problems


def _target(path: str, node: dict[str, Any], allowed: Sequence[str], look: Look) -> list[str]:
    target = node["_target_"]
    refused = f"{path}._target_={target!r} was refused: expected"
    if not isinstance(target, str) or target.split(".")[0] not in allowed:
        return [f"{refused} something from {', '.join(allowed)}, or from a package admitted by --plugin"]
    try:
        parameters = look(target, allowed)
    except UsageError as error:
        return [f"{refused} {error}"]
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the user's to read
        return [f"{path}._target_={target!r} cannot be imported: {str(error).splitlines()[0]}"]
    if parameters is None:
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    problems = [] if open_ended else _unknown(path, node, named)
    for name in named:
        if name in node:
            value, hint = node[name], parameters[name].annotation
            if _is_node(value):
                problems += _target(f"{path}.{name}", value, allowed, look)
            elif isinstance(value, dict) and any(map(_is_node, value.values())):
                for key, part in value.items():
                    own = f"{path}.{name}.{key}"
                    problems += _target(own, part, allowed, look) if _is_node(part) else [f"{own} names no member"]
            elif not accepts(hint, value):
                problems.append(f"{path}.{name}={value!r}: expected {describe(hint)}")
        elif parameters[name].default is Parameter.empty and not (name in INJECTED or node.get("_partial_")):
            problems.append(f"{path}.{name} is missing: {target} needs it")
    return problems


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _is_admitted(found: Any, allowed: Sequence[str]) -> bool:
    """Whether an object is one to build: no name that leads out of the packages, and of torch no function that reads.

    A package admitted by the user may have functions that build, too.
    """
    package = str(getattr(found, "__module__", "")).split(".")[0]
    if package not in allowed:
        return False
    if package not in ALLOWED:
        return True
    if package == "mlefw":
        return inspect.isclass(found)
    return inspect.isclass(found) and any(issubclass(found, get_object(part)) for part in PARTS)


@cache
def _annotated(target: Any) -> Mapping[str, Parameter]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - annotations of other people's code may not resolve; keys are checked all the same
        hints = {}
    signature = inspect.signature(target).parameters
    return {name: p.replace(annotation=hints.get(name, Any)) for name, p in signature.items()}


def _like(path: str, value: Any, default: Any) -> list[str]:
    """A plain setting is held to the type of its default; None says nothing."""
    if default is None or value is None or isinstance(value, dict):
        return []
    kind: Any = float if isinstance(default, float) else type(default)
    kind = int | Literal["auto"] if default == "auto" else kind
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
