"""What the terms of a formula take from the training rows, and their columns for any rows, by the library formulaic.

The library keeps its specifications as Python objects. Here they are plain values, from which it is built anew: a
stored model is loaded without running code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.days import span
from mlefw.reading.formula import Terms, read_terms
from mlefw.reading.table import Table
from mlefw.schema.formula_library import (
    category_of,
    check_factors,
    computed,
    evaluated,
    functions,
    levels_of,
    plain,
    ranged,
    specification,
    stored,
    text_of,
    widened,
)

_PROBED = 5
"""Training rows whose columns are stored, to be computed anew by another version of the library."""

_SAME = 1e-12
"""Largest difference of a column of these rows, relative to a value above 1, between versions that agree."""

_OUTSIDE = "beyond upper and/or lower bounds"
"""What the library says of values outside of the range of a spline."""


@dataclass(frozen=True)
class PlainTerm:
    """A term of a formula, such as `bs(age, df=5)` or `x:g`, and the design columns that it makes.

    Attributes:
        label: the term, for tables.
        columns: positions of its design columns among those of its formula.
        variables: the columns of the data that it reads, in order.
    """

    label: str
    columns: tuple[int, ...]
    variables: tuple[str, ...]


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
        terms: the terms in the order of their columns, without the intercept.
    """

    names: tuple[str, ...]
    transforms: dict[str, Any]
    categories: dict[str, Any]
    ranges: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    version: str = ""
    probe: tuple[dict[str, list[Any]], list[list[float]]] = field(default=({}, []))
    terms: tuple[PlainTerm, ...] = ()

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
        spec = specification(
            terms, {key: plain(value) for key, value in self.transforms.items()}, self.categories, where
        )
        try:
            found = computed(lambda: spec.get_model_matrix(frame, context=functions()), where, table)
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
                known = span(table, self.ranges[call][0], low, high)
                return UsageError(
                    f"{where}: {call} is known from {known} alone; outside lies {table.where(outside)} of "
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

    formula = computed(lambda: Formula(text_of(terms)), where)
    train = frame if len(index) == len(frame) else frame.iloc[index]
    transforms: dict[str, Any] = {}
    categories: dict[str, Any] = {}
    ranges: dict[str, tuple[str, float, float]] = {}
    check_factors(formula, where)
    for factor in dict.fromkeys(factor for term in formula for factor in term.factors):
        kind = factor.eval_method.value
        if kind == "literal":
            continue
        column = category_of(factor.expr)
        if kind == "lookup" or column is not None:
            categories[factor.expr] = levels_of(factor.expr, column or factor.expr, levels, where)
            continue
        alone = computed(lambda e=factor.expr: model_matrix(f"0 + {e}", train, context=functions()), where)
        (state_kind, _), *_ = alone.model_spec.encoder_state.values()
        if state_kind.value != "numerical":
            raise UsageError(
                f"{where}: {factor.expr} is no number; expected a comparison within I(…) * 1, or C(column)"
            )
        categories[factor.expr] = None
        transforms |= alone.model_spec.transform_state
        for key, call, expression in ranged(factor.expr):
            # The range of B-splines is that of all rows, so that no split lies outside.
            rows = frame if call.startswith("bs(") else train
            x = computed(lambda: model_matrix(f"0 + I({expression})", rows, context=functions()), where)  # noqa: B023
            low, high = float(x.to_numpy().min()), float(x.to_numpy().max())
            ranges[call] = (expression, low, high)
            if call.startswith("bs(") and key in transforms and "_bound" not in call:
                transforms[key] = widened(transforms[key], low, high)
    few = frame.iloc[index[:_PROBED]]
    spec = specification(terms, transforms, categories, where)
    first = computed(lambda: spec.get_model_matrix(few, context=functions()), where)
    names = tuple(str(name) for name in first.columns if name != "Intercept")
    state = FormulaState(names, {key: stored(value) for key, value in transforms.items()}, categories, ranges)
    state = replace(state, terms=_plain_terms(first.model_spec.term_indices, where))
    columns = state._values(terms, few, where)
    probe = {str(name): few[name].tolist() for name in few.columns if name in terms.columns}
    return replace(state, version=version("formulaic"), probe=(probe, columns.tolist()))


def _plain_terms(indices: Mapping[Any, list[int]], where: str) -> tuple[PlainTerm, ...]:
    """The terms of a design, given the positions of the columns of each, the intercept's among them."""
    start = sum(len(columns) for term, columns in indices.items() if str(term) == "1")
    found = []
    for term, columns in indices.items():
        if str(term) != "1" and columns:
            variables = dict.fromkeys(name for factor in term.factors for name in _variables(factor, where))
            found.append(PlainTerm(str(term), tuple(int(k) - start for k in columns), tuple(variables)))
    return tuple(found)


def _variables(factor: Any, where: str) -> tuple[str, ...]:
    """The columns of the data that a factor of a term reads."""
    kind = factor.eval_method.value
    if kind == "lookup":
        return (str(factor.expr),)
    return () if kind == "literal" else read_terms(factor.expr, where).columns
