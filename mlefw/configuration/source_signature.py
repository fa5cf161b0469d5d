"""Reads the parameters of a class from its source file, in milliseconds; an import (of torch, say) takes seconds."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import Parameter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, Union

_KNOWN: dict[str, Any] = {
    kind.__name__: kind for kind in (int, float, bool, str, list, tuple, dict, Iterable, Sequence)
}
_KNOWN |= {"Literal": Literal, "Optional": Optional, "Union": Union}
"""What names in annotations mean; any other name stands for `Any`."""

Parameters = Mapping[str, Parameter]


class _Module(NamedTuple):
    """The source of a module, and the names of the package it is in, by which relative imports are resolved."""

    package: list[str]
    body: Sequence[ast.stmt]


def parameters(target: str) -> Parameters | None:
    """The parameters of a class by name, or None if the source file does not tell them.

    Args:
        target: the full name of the class, such as `mlefw.head.gaussian.GaussianHead`.

    Returns:
        Parameters with annotations of plain types; other annotations are `Any`. Defaults are source text.
    """
    first, *names = target.split(".")
    # Only the first name: find_spec of a dotted name would import the packages before the last dot.
    spec = find_spec(first)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    file, package = Path(spec.origin), [first] if spec.submodule_search_locations else []
    while names and file.name == "__init__.py":
        inner, plain = file.parent / names[0] / "__init__.py", file.parent / f"{names[0]}.py"
        if not inner.is_file() and not plain.is_file():
            break
        package, file = ([*package, names[0]], inner) if inner.is_file() else (package, plain)
        names = names[1:]
    if len(names) != 1:
        return None
    return _read(file, names[0], tuple(package))


@cache
def _read(file: Path, name: str, package: tuple[str, ...]) -> Parameters | None:
    return _named(name, _Module([*package], ast.parse(file.read_text(encoding="utf-8")).body))


def _named(name: str, module: _Module) -> Parameters | None:
    """The parameters of a class that a module defines, or imports from another module."""
    for statement in module.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return _of_class(statement, module)
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    above = module.package[: len(module.package) + 1 - statement.level] if statement.level else []
                    return parameters(".".join([*above, *filter(None, [statement.module]), alias.name]))
    return None


def _of_class(definition: ast.ClassDef, module: _Module) -> Parameters | None:
    """The parameters of `__init__`, or else the inherited ones and, for a dataclass, its fields."""
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(statement.args)
    inherited: dict[str, Parameter] = {}
    for base in (ast.unparse(base) for base in reversed(definition.bases)):
        known = {} if base == "ABC" else _named(base, module)
        if known is None:
            return None
        inherited |= known
    if not definition.decorator_list:
        return inherited
    if any("dataclass" not in ast.unparse(decorator) for decorator in definition.decorator_list):
        return None
    fields = [statement for statement in definition.body if isinstance(statement, ast.AnnAssign)]
    return inherited | {
        ast.unparse(field.target): _parameter(ast.unparse(field.target), field.annotation, field.value)
        for field in fields
        if "ClassVar" not in ast.unparse(field.annotation) and "init=False" not in ast.unparse(field.value or field)
    }


def _of_function(arguments: ast.arguments) -> Parameters:
    plain = [*arguments.posonlyargs, *arguments.args][1:]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    found = {argument.arg: _parameter(argument.arg, argument.annotation, default) for argument, default in pairs}
    if arguments.kwarg is not None:
        found[arguments.kwarg.arg] = Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD)
    return found


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    standing = Parameter.empty if default is None else ast.unparse(default)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=standing, annotation=_hint(annotation))


def _hint(annotation: ast.expr | None) -> Any:
    """The type of an annotation that is made of plain types; `Any` for others."""
    names: Mapping[str, Any] = defaultdict(lambda: Any, _KNOWN)
    try:
        # No builtins, and names from a table: an annotation can call nothing.
        return Any if annotation is None else eval(ast.unparse(annotation), {"__builtins__": {}}, names)
    except (TypeError, AttributeError):
        return Any
