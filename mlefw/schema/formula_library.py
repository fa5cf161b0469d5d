"""What the library formulaic computes, asked with texts that were checked, its specifications being plain values."""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.formula import Terms, check_expression, check_factor
from mlefw.reading.table import Table

_RANGED = ("bs", "cc", "cr", "cs", "poly")
"""Functions that are learnt on a range of values, beyond which they go on in a way of their own."""


def evaluated(expression: str, frame: Any, table: Table, where: str) -> np.ndarray:
    """The values of an expression of columns without a state, (n,).

    Raises:
        UsageError: it cannot be computed, is no single number, or is not finite in some rows.
    """
    from formulaic import model_matrix

    check_expression(expression, where)
    found = computed(lambda: model_matrix(f"0 + I({expression})", frame, context=functions()), where, table)
    values = found.to_numpy(dtype=np.float64)
    if values.shape[1] != 1:
        raise UsageError(f"{where} is not one number for each row")
    finite = np.isfinite(values[:, 0])
    if not finite.all():
        raise UsageError(f"{where} is not a finite number in {table.where(~finite)} of {table.origin}")
    return np.ascontiguousarray(values[:, 0])


def text_of(terms: Terms) -> str:
    """The right side as the library reads it."""
    return f"{1 if terms.intercept else 0} + {terms.text}"


def check_factors(formula: Any, where: str) -> None:
    """Check each factor that the library would evaluate as Python, as it has split the formula itself.

    Raises:
        UsageError: one is of another form than is admitted.
    """
    for factor in {factor for term in formula for factor in term.factors}:
        if factor.eval_method.value == "python":
            check_factor(factor.expr, where)


def ranged(expression: str) -> Iterator[tuple[str, str, str]]:
    """The splines and polynomials of a factor: the key of their state, the call, and what it is a function of."""
    from formulaic.utils.code import format_expr, sanitize_variable_names

    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        names[alias := f"column_{len(names)}_"] = found[0]
        return alias

    def text(node: ast.AST) -> str:
        return re.sub(r"column_\d+_", lambda found: names.get(found[0], found[0]), ast.unparse(node))

    for node in ast.walk(ast.parse(re.sub(r"`[^`]*`", named, expression), mode="eval")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _RANGED:
            call = text(node)
            yield format_expr(sanitize_variable_names(call, {}, {})), call, text(node.args[0])


def specification(terms: Terms, transforms: Mapping[str, Any], categories: Mapping[str, Any], where: str) -> Any:
    """The library's own specification.

    Raises:
        UsageError: it cannot read the terms, or reads in them what is not admitted.
    """
    from formulaic import Formula, ModelSpec
    from formulaic.parser.types import Factor

    formula = computed(lambda: Formula(text_of(terms)), where)
    check_factors(formula, where)
    kinds = Factor.Kind
    encoders = {
        key: (kinds.NUMERICAL, {}) if levels is None else (kinds.CATEGORICAL, {"categories": list(levels)})
        for key, levels in categories.items()
    }
    return ModelSpec(
        formula=formula,
        transform_state=dict(transforms),
        encoder_state=encoders,
        materializer="pandas",
        ensure_full_rank=True,
        structure=None,
        na_action="ignore",
    )


def computed(compute: Any, where: str, table: Table | None = None) -> Any:
    """What the library computes; its errors become a `UsageError`."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Unknown levels and values that are not finite are found here, with the numbers of their rows.
            warnings.simplefilter("ignore")
            return compute()
    except UsageError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        of = f" of {table.origin}" if table is not None else ""
        raise UsageError(f"{where}: a term cannot be computed{of}: {reason}") from error


def category_of(expression: str) -> str | None:
    """The column of `C(column, …)`; None for another expression."""
    found = re.match(r"C\(\s*(`[^`]+`|[^\s,)]+)", expression)
    return found[1].strip("`") if found else None


def reference_of(expression: str, levels: Sequence[Any]) -> Any:
    """The reference level of `C(column, …)`: the first of `levels=[…]`, or the `base` of its coding, else the first."""
    order = _stated_levels(expression)
    base = re.search(r"base\s*=\s*('[^']*'|\"[^\"]*\"|-?[\d.]+)", expression)
    return ast.literal_eval(base[1]) if base else (order or levels)[0]


def levels_of(expression: str, column: str, levels: Mapping[str, list[Any] | None], where: str) -> list[Any] | None:
    """The levels of a factor in their order: those that `levels=[…]` states, else those of its column."""
    known = levels.get(column)
    order = _stated_levels(expression)
    if order is None or known is None:
        return known
    if set(order) != set(known):
        odd = sorted(map(str, set(order) ^ set(known)))[:5]
        raise UsageError(
            f"{where}: levels=[…] of {expression} and column {column!r} differ in {', '.join(odd)}"
            "\n  expected: every level of the column once, the reference first"
        )
    return order


def _stated_levels(expression: str) -> list[Any] | None:
    stated = re.search(r"levels\s*=\s*(\[[^\]]*\])", expression)
    return list(ast.literal_eval(stated[1])) if stated else None


def widened(state: Any, low: float, high: float) -> Any:
    """The state of a B-spline with another range, and the knots of the training rows."""
    swap = {state["lower_bound"]: low, state["upper_bound"]: high}
    return {**state, "lower_bound": low, "upper_bound": high, "knots": [swap.get(k, k) for k in state["knots"]]}


def functions() -> dict[str, Any]:
    """Functions that a term may call beside those of the library."""
    names = ("abs", "cos", "expm1", "log1p", "sin", "sqrt", "tan")
    return {name: getattr(np, name) for name in names}


def stored(value: Any) -> Any:
    """A state in plain values: dicts as lists of pairs, as their keys may be numbers, which JSON would not keep."""
    if isinstance(value, dict):
        return {"pairs": [[stored(key), stored(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple | np.ndarray):
        return [stored(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def plain(value: Any) -> Any:
    """The state that `_stored` has written."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value["pairs"]}
    return [plain(item) for item in value] if isinstance(value, list) else value
