"""What the terms of a formula take from the training rows, and their columns for any rows, by the library formulaic.

The library keeps its specifications as Python objects. Here they are plain values, from which it is built anew: a
stored model is loaded without running code.
"""

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.formula import Terms, read_terms
from mlefw.reading.table import Table


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
        terms: the terms in the order of their columns, without the intercept.
    """

    names: tuple[str, ...]
    transforms: dict[str, Any]
    categories: dict[str, Any]
    terms: tuple[PlainTerm, ...] = ()

    def columns(self, terms: Terms, frame: Any, table: Table, where: str) -> np.ndarray:
        """The design columns of a block of rows, (n, len(names)).

        Raises:
            UsageError: a term cannot be computed, or is not finite in some rows.
        """
        spec = _spec(terms, {key: _plain(value) for key, value in self.transforms.items()}, self.categories)
        found = _computed(lambda: spec.get_model_matrix(frame, context=_functions()), where, table)
        kept = [k for k, name in enumerate(found.columns) if name != "Intercept"]
        values = found.to_numpy(dtype=np.float64)[:, kept]
        if values.shape[1] != len(self.names):
            raise UsageError(f"{where}: the terms make other columns than in training; expected formulaic of that time")
        finite = np.isfinite(values)
        if not finite.all():
            column = int(np.argmin(finite.all(0)))
            raise UsageError(
                f"{where}: {self.names[column]} is not a finite number in {table.where(~finite[:, column])}"
                f" of {table.origin}"
            )
        return values


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
    for factor in dict.fromkeys(factor for term in formula for factor in term.factors):
        kind = factor.eval_method.value
        if kind == "literal":
            continue
        column = _category_of(factor.expr)
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
        transforms |= {key: _widened(key, state, frame) for key, state in alone.model_spec.transform_state.items()}
    few = frame.iloc[index[:1]]
    spec = _spec(terms, transforms, categories)
    first = _computed(lambda: spec.get_model_matrix(few, context=_functions()), where)
    names = tuple(str(name) for name in first.columns if name != "Intercept")
    stored = {key: _stored(value) for key, value in transforms.items()}
    return FormulaState(names, stored, categories, _plain_terms(first.model_spec.term_indices, where))


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


def evaluated(expression: str, frame: Any, table: Table, where: str) -> np.ndarray:
    """The values of an expression of columns without a state, (n,).

    Raises:
        UsageError: it cannot be computed, is no single number, or is not finite in some rows.
    """
    from formulaic import model_matrix

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


def _spec(terms: Terms, transforms: Mapping[str, Any], categories: Mapping[str, Any]) -> Any:
    """The library's own specification."""
    from formulaic import Formula, ModelSpec
    from formulaic.parser.types import Factor

    kinds = Factor.Kind
    encoders = {
        key: (kinds.NUMERICAL, {}) if levels is None else (kinds.CATEGORICAL, {"categories": list(levels)})
        for key, levels in categories.items()
    }
    return ModelSpec(
        formula=Formula(_text(terms)),
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
        if "beyond upper and/or lower bounds" in reason:
            raise UsageError(
                f"{where}: rows{of} lie outside the range of a spline in training\n  expected values within it, or "
                "bs(…, extrapolation='clip') or 'extend'"
            ) from error
        raise UsageError(f"{where}: a term cannot be computed{of}: {reason}") from error


def _category_of(expression: str) -> str | None:
    """The column of `C(column, …)`; None for another expression."""
    found = re.match(r"C\(\s*(`[^`]+`|[^\s,)]+)", expression)
    return found[1].strip("`") if found else None


def _levels(expression: str, column: str, levels: Mapping[str, list[Any] | None], where: str) -> list[Any] | None:
    """The levels of a factor in their order: those that `levels=[…]` states, else those of its column."""
    known = levels.get(column)
    stated = re.search(r"levels\s*=\s*(\[[^\]]*\])", expression)
    if not stated or known is None:
        return known
    order = list(ast.literal_eval(stated[1]))
    if set(order) != set(known):
        odd = sorted(map(str, set(order) ^ set(known)))[:5]
        raise UsageError(
            f"{where}: levels=[…] of {expression} and column {column!r} differ in {', '.join(odd)}"
            "\n  expected: every level of the column once, the reference first"
        )
    return order


def _widened(call: str, state: Any, frame: Any) -> Any:
    """The state of a spline whose range is that of all rows, with the knots of the training rows."""
    if not (call.startswith("bs(") and isinstance(state, dict) and "knots" in state):
        return state
    from formulaic import model_matrix

    whole = model_matrix(f"0 + {call}", frame, context=_functions()).model_spec.transform_state[call]
    old, new = (state["lower_bound"], state["upper_bound"]), (whole["lower_bound"], whole["upper_bound"])
    swap = dict(zip(old, new, strict=True))
    return {**state, "lower_bound": new[0], "upper_bound": new[1], "knots": [swap.get(k, k) for k in state["knots"]]}


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
