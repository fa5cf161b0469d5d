"""Builds a dataclass from plain containers, such as the content of a file, and checks every value against its type."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from mlefw.errors import UsageError

T = TypeVar("T")


def typed(kind: type[T], plain: Any, where: str) -> T:
    """A dataclass instance whose fields are taken from plain containers and have their annotated types.

    Args:
        kind: the dataclass. Fields may be numbers, text, booleans, tuples, lists, dicts, literals, dataclasses, unions
            of these, tensors, or anything (`Any`).
        plain: a dict of the fields, in which lists stand for tuples; fields with a default may be left out.
        where: the name of the content in messages, such as `step`.

    Raises:
        UsageError: a field is missing, unknown, of another type, or a number that is not finite.
    """
    return cast(T, _value(kind, plain, where))


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is typing.Literal:
        fits = any(type(value) is type(one) and value == one for one in arguments)
    elif origin is tuple and isinstance(value, list | tuple):
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(each) == len(value):
            return tuple(
                _value(one, item, f"{where}[{k}]") for k, (one, item) in enumerate(zip(each, value, strict=True))
            )
        fits = False
    elif origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{where}[{k}]") for k, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        pairs = ((_value(arguments[0], key, where), key, item) for key, item in value.items())
        return {key: _value(arguments[1], item, f"{where}.{name}") for key, name, item in pairs}
    else:
        fits = _is_plain(hint, value)
    if not fits:
        expected = getattr(hint, "__name__", hint) if origin is None else hint
        raise UsageError(f"{where} is {_shown(value)}: expected {expected}")
    return value


def _is_plain(hint: Any, value: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or (value is None if hint is type(None) else isinstance(hint, type) and isinstance(value, hint))


def _record(kind: Any, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is {_shown(value)}: expected the parts {', '.join(fields)}")
    needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    lacking, unknown = [n for n in needed if n not in value], [n for n in value if n not in fields]
    if lacking or unknown:
        what = f"lacks {lacking[0]!r}" if lacking else f"has {_shown(unknown[0])}, which is unknown"
        raise UsageError(f"{where} {what}")
    return kind(**{name: _value(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _one_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    problem = None
    for hint in hints:
        try:
            return _value(hint, value, where)
        except UsageError as error:
            problem = problem or error
    raise problem or UsageError(f"{where} is {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:60]}…"
