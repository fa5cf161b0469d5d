"""Penalised terms of a formula: smooth functions `s(x)`, and effects of groups such as `(1 | g)` and `(1 + x | g)`."""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.days import span
from mlefw.reading.formula import Terms, quoted, read_terms
from mlefw.reading.levels import check_whole, factorize
from mlefw.reading.table import Table
from mlefw.schema.formula_library import evaluated
from mlefw.schema.formula_state import FormulaState, learn_state
from mlefw.schema.spline import basis_columns, centred, knots_of, penalty_matrix

MOST_COLUMNS = 2000
"""Most columns of one term: matrices of all coefficients are formed."""

_FEWEST = 4
"""Fewest basis functions of a smooth term."""


@dataclass(frozen=True)
class RandomTerm:
    """A term whose coefficients have a normal prior, whose scale is estimated.

    Attributes:
        label: the term, for tables: `s(x)`, `(1 | g)`.
        basis: `cr` or `ps` of a smooth term, else `group`.
        names: names of its design columns, the penalised ones first.
        num_penalised: number of penalised columns.
        effects: names of the effects of each group, `(intercept)` and columns; empty for a smooth term. The columns of
            an effect, one for each group, stand together.
        variable: of a smooth term the expression that it is a function of.
        knots: knots of a smooth term.
        matrix: of a smooth term the map of basis functions to columns, (count, len(names)), by rows.
        factors: columns whose values together name a group.
        levels: the groups: the values of `factors`, joined by `:`.
        inner: state of the terms left of the bar; None without any.
    """

    label: str
    basis: Literal["cr", "ps", "group"]
    names: tuple[str, ...]
    num_penalised: int
    effects: tuple[str, ...] = ()
    variable: str = ""
    knots: tuple[float, ...] = ()
    matrix: tuple[tuple[float, ...], ...] = ()
    factors: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    left: str = "1"
    inner: FormulaState | None = None

    @property
    def num_groups(self) -> int:
        """Number of groups; 0 of a smooth term."""
        return len(self.levels)

    def columns(self, frame: Any, table: Table, where: str) -> np.ndarray:
        """The design columns of a block of rows, (n, len(names)); of a group that is not known they are zero.

        Raises:
            UsageError: a term cannot be computed.
        """
        if self.basis != "group":
            x = evaluated(self.variable, frame, table, f"{where}, {self.label}")
            return np.asarray(basis_columns(x, np.array(self.knots), self.basis) @ np.array(self.matrix))
        code = _group_codes(table, self.factors, self.levels)
        found = np.zeros((table.num_rows, len(self.effects), self.num_groups))
        rows = np.flatnonzero(code >= 0)
        for e, values in enumerate(self._effects(frame, table, where)):
            found[rows, e, code[rows]] = values[rows]
        return found.reshape(table.num_rows, -1)

    def beyond(self, frame: Any, table: Table, where: str) -> tuple[np.ndarray, str]:
        """The rows that lie outside of the training rows, (n,): of another group, or beyond the knots; and how."""
        if self.basis == "group":
            return _group_codes(table, self.factors, self.levels) < 0, "group"
        x = evaluated(self.variable, frame, table, f"{where}, {self.label}")
        low, high = (self.knots[k] for k in ((0, -1) if self.basis == "cr" else (3, -4)))
        return (x < low) | (x > high), span(table, self.variable, low, high)

    def _effects(self, frame: Any, table: Table, where: str) -> Iterator[np.ndarray]:
        terms = read_terms(self.left, f"{where}, {self.label}")
        if terms.intercept:
            yield np.ones(table.num_rows)
        if self.inner is not None:
            yield from self.inner.columns(terms, frame, table, f"{where}, {self.label}").T


def learn_random_terms(
    terms: Terms,
    frame: Any,
    table: Table,
    index: np.ndarray,
    weight: np.ndarray,
    levels: Mapping[str, list[Any] | None],
    where: str,
) -> tuple[RandomTerm, ...]:
    """The smooth terms and effects of groups of one formula, as the training rows at `index` teach them.

    Args:
        terms: the formula.
        frame: all rows, as the formula library takes them.
        table: all rows.
        index: positions of the training rows.
        weight: weights of the training rows.
        levels: levels of each column that is or becomes a category.
        where: the setting, for messages.

    Raises:
        UsageError: a term is of an unknown kind, or has too few or too many values.
    """
    found: list[RandomTerm] = []
    for text in terms.smooths:
        variable, settings = _smooth_settings(text, where)
        if settings["bs"] == "re":
            found += _groups(f"1 | {variable}", frame, table, index, levels, where)
        else:
            found.append(_smooth(text, variable, settings, frame, table, index, weight, where))
            if variable in {part.strip() for part in re.split(r"[+]", terms.text)}:
                raise UsageError(f"{where}: {text} and {variable} both hold its straight line; expected one of them")
    for text in terms.groups:
        found += _groups(text, frame, table, index, levels, where)
    for one in found:
        if len(one.names) > MOST_COLUMNS:
            raise UsageError(
                f"{where}: {one.label} has {len(one.names):,} coefficients: expected at most {MOST_COLUMNS:,}"
            )
    return tuple(found)


def _smooth_settings(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """The variable of `s(…)` and its settings."""
    inner = text[text.index("(") + 1 : -1]
    variable, *rest = _arguments(inner)
    settings: dict[str, Any] = {"k": 10, "bs": "cr"}
    for part in rest:
        name, sign, value = part.partition("=")
        if not sign or name.strip() not in settings:
            raise UsageError(f"{where}: {text} has {part.strip()!r}; expected k=10 or bs='cr' | 'ps' | 're'")
        settings[name.strip()] = ast.literal_eval(value.strip())
    if settings["bs"] not in ("cr", "ps", "re"):
        raise UsageError(f"{where}: {text} has the unknown basis {settings['bs']!r}; expected cr, ps or re")
    if not isinstance(settings["k"], int) or settings["k"] < _FEWEST:
        raise UsageError(f"{where}: {text}: expected k of at least {_FEWEST}")
    return variable.strip(), settings


def _arguments(inner: str) -> list[str]:
    found, depth = [""], 0
    for sign in inner:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return found


def _smooth(
    text: str,
    variable: str,
    settings: Mapping[str, Any],
    frame: Any,
    table: Table,
    index: np.ndarray,
    weight: np.ndarray,
    where: str,
) -> RandomTerm:
    basis, count = settings["bs"], settings["k"]
    x = evaluated(variable, frame, table, f"{where}, {text}")[index]
    distinct = len(np.unique(x))
    if distinct < _FEWEST:
        raise UsageError(f"{where}: {text}: {variable} has {distinct} values in the training rows; expected {_FEWEST}")
    if distinct < count:
        warnings.warn(
            f"{where}: {variable} has {distinct} distinct values, which {text} takes as k", UserWarning, stacklevel=2
        )
        count = distinct
    knots = knots_of(x, count, basis)
    columns = basis_columns(x, knots, basis)
    wiggly, straight = centred(columns, weight, penalty_matrix(knots, basis))
    label = f"s({variable})"
    names = [f"{label}.{k}" for k in range(1, wiggly.shape[1] + 1)]
    names += [f"{label}.line" if k == 0 else f"{label}.line{k}" for k in range(straight.shape[1])]
    matrix = np.concatenate([wiggly, straight], 1)
    return RandomTerm(
        label,
        basis,
        tuple(names),
        wiggly.shape[1],
        variable=variable,
        knots=tuple(knots.tolist()),
        matrix=tuple(map(tuple, matrix.tolist())),
    )


def _groups(
    text: str, frame: Any, table: Table, index: np.ndarray, levels: Mapping[str, list[Any] | None], where: str
) -> list[RandomTerm]:
    """The terms of `effects | group`; a nested group a/b stands for a and a:b."""
    left, _, right = text.partition("|")
    left, right = left.strip(), right.strip()
    parts = [part.strip() for part in right.split("/")]
    nested = [":".join(parts[: k + 1]) for k in range(len(parts))]
    return [_group(left, one, frame, table, index, levels, where) for one in nested]


def _group(
    left: str,
    right: str,
    frame: Any,
    table: Table,
    index: np.ndarray,
    levels: Mapping[str, list[Any] | None],
    where: str,
) -> RandomTerm:
    label = f"({left} | {right})"
    factors = tuple(part.strip().strip("`") for part in right.split(":"))
    terms = read_terms(left, f"{where}, {label}")
    train = table.take(index)
    known = sorted(_group_of_rows(train.only(factors), factors)[0], key=_order)
    if len(known) < 2:
        raise UsageError(f"{where}: {label} has one group in the training rows; expected two or more")
    inner = learn_state(terms, frame, index, levels, f"{where}, {label}") if terms.text else None
    effects = (["(intercept)"] if terms.intercept else []) + list(inner.names if inner else ())
    if not effects:
        raise UsageError(f"{where}: {label} has no effect left of its bar; expected such as (1 | {quoted(right)})")
    names = tuple(f"{label}.{effect}[{level}]" for effect in effects for level in known)
    return RandomTerm(
        label, "group", names, len(names), tuple(effects), factors=factors, levels=tuple(known), left=left, inner=inner
    )


def _order(level: str) -> tuple[tuple[int, float, str], ...]:
    """Numbers in their order, before texts in theirs."""
    parts = []
    for part in level.split(":"):
        try:
            parts.append((0, float(part), ""))
        except ValueError:
            parts.append((1, 0.0, part))
    return tuple(parts)


def _group_of_rows(table: Table, factors: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The groups of some rows, the values of the factors as text, joined by `:`; and the position of each row's, (n,).

    Raises:
        UsageError: a value is missing.
    """
    names: list[str] = [""]
    code = np.zeros(table.num_rows, dtype=np.int64)
    for k, factor in enumerate(factors):
        check_whole(table, factor, "a group")
        levels, of_factor = factorize(table.columns[factor])
        pairs, code = np.unique(code * len(levels) + of_factor, return_inverse=True)
        left = [names[pair // len(levels)] for pair in pairs.tolist()]
        right = [levels[pair % len(levels)] for pair in pairs.tolist()]
        names = [f"{a}:{b}" if k else b for a, b in zip(left, right, strict=True)]
    return names, code


def _group_codes(table: Table, factors: tuple[str, ...], levels: tuple[str, ...]) -> np.ndarray:
    """Position of the group of each row among the known ones, (n,); −1 where it is none of them."""
    position = {level: k for k, level in enumerate(levels)}
    names, code = _group_of_rows(table, factors)
    return np.array([position.get(name, -1) for name in names], dtype=np.int64)[code]
