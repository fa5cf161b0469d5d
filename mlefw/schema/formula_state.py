"""What the terms of a formula take from the training rows, and their columns for any rows, by the library formulaic.

The library keeps its specifications as Python objects. Here they are plain values, from which it is built anew: a
stored model is loaded without running code.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.formula import Terms, check_expression, check_factor
from mlefw.reading.table import Table

_PROBED = 5
"""Training rows whose columns are stored, to be computed anew by another version of the library."""

_SAME = 1e-12
"""Largest difference of a column of these rows, relative to a value above 1, between versions that agree."""

_OUTSIDE = "beyond upper and/or lower bounds"
"""What the library says of values outside of the range of a spline."""

_RANGED = ("bs", "cc", "cr", "cs", "poly")
"""Functions that are learnt on a range of values, beyond which they go on in a way of their own."""


@dataclass(frozen=True)
class FormulaState:
    """The state of the terms of one formula.

    Attributes:
        names: names of the design columns, without the intercept.
        transforms: for each function with a state (a spline, a centred column) its call and its state, in which dicts
            are lists of pairs.
        categories: levels of each factor that is a category; None for a factor that is a number.
        ranges: for each spline and polynomial the expression of columns that it is of, and its lowest and highest value
            in the training rows.
        version: of the library that made the state.
        probe: columns of some training rows by name, and the design columns of these rows.
    """

    names: tuple[str, ...]
    transforms: dict[str, Any]
    categories: dict[str, Any]
    ranges: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    version: str = ""
    probe: tuple[dict[str, list[Any]], list[list[float]]] = field(default=({}, []))

    def columns(self, terms: Terms, frame: Any, table: Table, where: str) -> np.ndarray:
        """The design columns of a block of rows, (n, len(names)).

        Raises:
            UsageError: a term cannot be computed, or is not finite in some rows.
        """
        values = self._values(terms, frame, where, table)
        finite = np.isfinite(values)
        if not finite.all():
            column = int(np.argmin(finite.all(0)))
            raise UsageError(
                f"{where}: {self.names[column]} is not a finite number in {table.where(~finite[:, column])}"
                f" of {table.origin}"
            )
        return values

    def check(self, terms: Terms, where: str) -> None:
        """Check that the library, if it is of another version than in training, makes the same columns of stored rows.

        Raises:
            UsageError: it does not.
        """
        if not self.version or self.version == version("formulaic"):
            return
        import pandas as pd

        rows, columns = self.probe
        wanted = np.array(columns, dtype=np.float64).reshape(-1, len(self.names))
        found = self._values(terms, pd.DataFrame(rows), where)
        same = found.shape == wanted.shape and (np.abs(found - wanted) <= _SAME * np.maximum(1.0, np.abs(wanted))).all()
        if not same:
            raise UsageError(
                f"{where}: formulaic {version('formulaic')} makes other columns of rows of the training than "
                f"{self.version}, with which the model was made; expected pip install formulaic=={self.version}"
            )

    def beyond(self, frame: Any, table: Table, where: str) -> Iterator[tuple[str, np.ndarray, float, float]]:
        """For each spline or polynomial the rows outside of its range in training, (n,), and this range."""
        for call, (expression, low, high) in self.ranges.items():
            x = evaluated(expression, frame, table, f"{where}, {call}")
            yield call, (x < low) | (x > high), low, high

    def _values(self, terms: Terms, frame: Any, where: str, table: Table | None = None) -> np.ndarray:
        """The design columns of some rows, (n, len(names)), which need not be finite.

        Raises:
            UsageError: a term cannot be computed; with the rows outside of the range of a spline, where that is why.
        """
        spec = _spec(terms, {key: _plain(value) for key, value in self.transforms.items()}, self.categories, where)
        try:
            found = _computed(lambda: spec.get_model_matrix(frame, context=_functions()), where, table)
        except UsageError as error:
            if _OUTSIDE not in str(error.__cause__) or table is None:
                raise
            raise self._outside(frame, table, where) from error
        kept = [k for k, name in enumerate(found.columns) if name != "Intercept"]
        values: np.ndarray = found.to_numpy(dtype=np.float64)[:, kept]
        if values.shape[1] != len(self.names):
            raise UsageError(f"{where}: the terms make other columns than in training; expected formulaic of that time")
        return values

    def _outside(self, frame: Any, table: Table, where: str) -> UsageError:
        """The error of values outside of the range of a spline, with their rows."""
        for call, outside, low, high in self.beyond(frame, table, where):
            if call.startswith("bs(") and outside.any():
                return UsageError(
                    f"{where}: {call} is known from {low:g} to {high:g} alone; outside lies {table.where(outside)} of "
                    f"{table.origin}\n  expected values within, or in training {call[:-1]}, extrapolation='clip') or "
                    "'extend'"
                )
        return UsageError(f"{where}: rows of {table.origin} lie outside the range of a spline in training")


def learn_state(
    terms: Terms, frame: Any, index: np.ndarray, levels: Mapping[str, list[Any] | None], where: str
) -> FormulaState:
    """The state of terms, from the training rows at `index` of a frame.

    Functions are computed one by one, so that the columns of categories never stand in memory for all rows.

    Args:
        terms: the terms.
        frame: all rows.
        index: positions of the training rows.
        levels: levels of each column that is or becomes a category.
        where: the setting, for messages.

    Raises:
        UsageError: a term cannot be computed.
    """
    from formulaic import Formula, model_matrix

    formula = _computed(lambda: Formula(_text(terms)), where)
    train = frame if len(index) == len(frame) else frame.iloc[index]
    transforms: dict[str, Any] = {}
    categories: dict[str, Any] = {}
    ranges: dict[str, tuple[str, float, float]] = {}
    _check_factors(formula, where)
    for factor in dict.fromkeys(factor for term in formula for factor in term.factors):
        kind = factor.eval_method.value
        if kind == "literal":
            continue
        column = category_of(factor.expr)
        if kind == "lookup" or column is not None:
            categories[factor.expr] = _levels(factor.expr, column or factor.expr, levels, where)
            continue
        alone = _computed(lambda e=factor.expr: model_matrix(f"0 + {e}", train, context=_functions()), where)
        (state_kind, _), *_ = alone.model_spec.encoder_state.values()
        if state_kind.value != "numerical":
            raise UsageError(
                f"{where}: {factor.expr} is no number; expected a comparison within I(…) * 1, or C(column)"
            )
        categories[factor.expr] = None
        transforms |= alone.model_spec.transform_state
        for key, call, expression in _ranged(factor.expr):
            # The range of B-splines is that of all rows, so that no split lies outside.
            rows = frame if call.startswith("bs(") else train
            x = _computed(lambda: model_matrix(f"0 + I({expression})", rows, context=_functions()), where)  # noqa: B023
            low, high = float(x.to_numpy().min()), float(x.to_numpy().max())
            ranges[call] = (expression, low, high)
            if call.startswith("bs(") and key in transforms and "_bound" not in call:
                transforms[key] = _widened(transforms[key], low, high)
    few = frame.iloc[index[:_PROBED]]
    spec = _spec(terms, transforms, categories, where)
    first = _computed(lambda: spec.get_model_matrix(few, context=_functions()), where)
    names = tuple(str(name) for name in first.columns if name != "Intercept")
    state = FormulaState(names, {key: _stored(value) for key, value in transforms.items()}, categories, ranges)
    columns = state._values(terms, few, where)
    probe = {str(name): few[name].tolist() for name in few.columns if name in terms.columns}
    return replace(state, version=version("formulaic"), probe=(probe, columns.tolist()))


def evaluated(expression: str, frame: Any, table: Table, where: str) -> np.ndarray:
    """The values of an expression of columns without a state, (n,).

    Raises:
        UsageError: it cannot be computed, is no single number, or is not finite in some rows.
    """
    from formulaic import model_matrix

    check_expression(expression, where)
    found = _computed(lambda: model_matrix(f"0 + I({expression})", frame, context=_functions()), where, table)
    values = found.to_numpy(dtype=np.float64)
    if values.shape[1] != 1:
        raise UsageError(f"{where} is not one number for each row")
    finite = np.isfinite(values[:, 0])
    if not finite.all():
        raise UsageError(f"{where} is not a finite number in {table.where(~finite)} of {table.origin}")
    return np.ascontiguousarray(values[:, 0])


def _text(terms: Terms) -> str:
    return f"{1 if terms.intercept else 0} + {terms.text}"


def _check_factors(formula: Any, where: str) -> None:
    """Check each factor that the library would evaluate as Python, as it has split the formula itself.

    Raises:
        UsageError: one is of another form than is admitted.
    """
    for factor in {factor for term in formula for factor in term.factors}:
        if factor.eval_method.value == "python":
            check_factor(factor.expr, where)


def _ranged(expression: str) -> Iterator[tuple[str, str, str]]:
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


def _spec(terms: Terms, transforms: Mapping[str, Any], categories: Mapping[str, Any], where: str) -> Any:
    """The library's own specification.

    Raises:
        UsageError: it cannot read the terms, or reads in them what is not admitted.
    """
    from formulaic import Formula, ModelSpec
    from formulaic.parser.types import Factor

    formula = _computed(lambda: Formula(_text(terms)), where)
    _check_factors(formula, where)
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


def _computed(compute: Any, where: str, table: Table | None = None) -> Any:
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


def _levels(expression: str, column: str, levels: Mapping[str, list[Any] | None], where: str) -> list[Any] | None:
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


def _widened(state: Any, low: float, high: float) -> Any:
    """The state of a B-spline with another range, and the knots of the training rows."""
    swap = {state["lower_bound"]: low, state["upper_bound"]: high}
    return {**state, "lower_bound": low, "upper_bound": high, "knots": [swap.get(k, k) for k in state["knots"]]}


def _functions() -> dict[str, Any]:
    """Functions that a term may call beside those of the library."""
    names = ("abs", "cos", "expm1", "log1p", "sin", "sqrt", "tan")
    return {name: getattr(np, name) for name in names}


def _stored(value: Any) -> Any:
    """A state in plain values: dicts as lists of pairs, as their keys may be numbers, which JSON would not keep."""
    if isinstance(value, dict):
        return {"pairs": [[_stored(key), _stored(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple | np.ndarray):
        return [_stored(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    """The state that `_stored` has written."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value["pairs"]}
    return [_plain(item) for item in value] if isinstance(value, list) else value
