"""Target columns as the numbers or codes that a head takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.levels import BOOLEANS, are_text, check, check_whole, codes, factorize, is_number, is_text, numbers
from mlefw.reading.table import Table

TargetKind = Literal["numeric", "binary", "labels", "ordered"]
"""Kind of target of a head: real numbers, 0 and 1, labels, or ordered labels."""

MAX_NUMERIC_LABELS = 100
"""Number of distinct numbers above which they are labels only if they are whole, with enough rows for each."""

FEWEST_ROWS = 5
"""Least average number of rows for each label that is a number."""

EXTREME = 1e100
"""Largest size of a target, and reciprocal of the smallest; beyond it sums of squares could overflow."""


@dataclass(frozen=True)
class Target:
    """A target column: its name, its kind, and its labels in the order of their codes if it has any."""

    name: str
    kind: TargetKind
    labels: tuple[str, ...] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the column has to be read as text."""
        return are_text(self.labels or ())


def learn_labels(
    table: Table, name: str, kind: TargetKind, order: Sequence[object] | None = None
) -> tuple[str, ...] | None:
    """The labels of a target in the order of their codes; None if the target is a number.

    Args:
        table: all rows.
        name: name of the target.
        kind: kind of the target.
        order: all labels in the order that the user states; by default the order of the table, else sorted.

    Raises:
        UsageError: the target does not fit the kind; the message suggests another head.
    """
    check_whole(table, name, "data.target")
    column = table.columns[name]
    if order is None and kind != "numeric":
        occurring = set(column.tolist()) if name in table.orders else set()
        known = [level for level in table.orders.get(name, ()) if level in occurring]
        order = known if len(known) > 1 else None
    if order is not None:
        return _stated(table, name, kind, [str(label) for label in order])
    if kind == "ordered" and is_text(column) and not all(is_number(value) for value in set(column.tolist())):
        found, _ = factorize(column)
        raise UsageError(
            f"{table.origin}: column {name!r} (data.target) holds labels of no known order: {', '.join(found[:10])}"
            "\n  expected: data.labels=[…], all of them from the lowest to the highest"
        )
    if kind == "numeric":
        values = numbers(table, name, "data.target", _head_for_text(column))
        _check_magnitude(table, name, values)
        return None
    if kind == "binary":
        return _two_labels(table, name)
    if not is_text(column):
        numbers(table, name, "data.target")
    levels, _ = factorize(column)
    if len(levels) < 2:
        raise UsageError(
            f"{table.origin}: column {name!r} (data.target) holds one label alone: {levels[0]!r}"
            "\n  expected: at least two labels"
        )
    fractional = column.dtype.kind == "f" and not np.array_equal(column, np.floor(column))
    scarce = not is_text(column) and len(levels) * FEWEST_ROWS > table.num_rows
    if (fractional or scarce) and len(levels) > MAX_NUMERIC_LABELS:
        what = "distinct fractional numbers" if fractional else f"distinct numbers in {table.num_rows} rows"
        raise UsageError(
            f"{table.origin}: column {name!r} (data.target) holds {len(levels)} {what}, not labels"
            "\n  for a number as target choose another head, e.g. head=gaussian"
        )
    return tuple(levels)


def coded(
    table: Table, name: str, kind: TargetKind, labels: tuple[str, ...] | None, required: bool = True
) -> np.ndarray:
    """The target, (n,): float64, or int64 codes if the kind is `labels` or `ordered`.

    Args:
        table: the table, which may lack the column.
        name: name of the column.
        kind: kind of the target.
        labels: labels in the order of their codes; None for a number.
        required: whether a missing value is an error; otherwise it is NaN, or the code −1.

    Raises:
        UsageError: a value is not a number, not one of the labels, or missing.
    """
    if required:
        check_whole(table, name, "data.target")
    is_code = kind in ("labels", "ordered")
    y = np.full(table.num_rows, -1, dtype=np.int64) if is_code else np.full(table.num_rows, np.nan)
    if name in table.columns:
        present, index = table.present(name)
        y[index] = (
            numbers(present, name, "data.target") if labels is None else codes(present, name, labels, "data.target")
        )
    return y


def coded_together(table: Table, targets: Sequence[Target], required: bool, partial: bool) -> np.ndarray:
    """Several targets as columns, (n, num_targets), float64; a missing value is NaN.

    With `partial` a target may be missing in a row that has another.

    Raises:
        UsageError: a value is not a number, not one of the labels, or missing; or a row has no target.
    """
    columns = [coded(table, t.name, t.kind, t.labels, required and not partial).astype(np.float64) for t in targets]
    for target, column in zip(targets, columns, strict=True):
        column[column < 0 if target.kind in ("labels", "ordered") else np.isnan(column)] = np.nan
    y = np.stack(columns, 1)
    empty = np.asarray(np.isnan(y).all(1))
    if required and empty.any():
        raise UsageError(
            f"{table.origin}: {table.where(empty)} have none of the targets {', '.join(t.name for t in targets)}"
            "\n  expected: at least one of them in every row; take these rows out"
        )
    return y


def _check_magnitude(table: Table, name: str, values: np.ndarray) -> None:
    size = np.abs(values)
    check(table, name, "data.target", size <= EXTREME, f"numbers up to {EXTREME:g}: choose another unit")
    if len(size) and 0 < size.max() < 1 / EXTREME:
        raise UsageError(
            f"{table.origin}: column {name!r} (data.target) is below {1 / EXTREME:g} in every row"
            "\n  expected: larger numbers: choose another unit"
        )


def _stated(table: Table, name: str, kind: TargetKind, order: list[str]) -> tuple[str, ...]:
    if kind == "numeric":
        raise UsageError(f"data.labels is for heads whose target has labels\n  column {name!r} is taken as a number")
    column = table.columns[name]
    column = column.astype(object) if column.dtype.kind == "b" else column
    levels, code = factorize(np.array([str(value) for value in column]) if column.dtype.kind == "O" else column)
    known = np.array([level in order for level in levels], dtype=bool)
    check(table, name, "data.target", known[code], f"one of data.labels: {', '.join(order)}")
    absent = [label for label in order if label not in levels]
    if absent or len(set(order)) < len(order) or len(order) < 2 or (kind == "binary" and len(order) > 2):
        number = "two" if kind == "binary" else "at least two"
        what = (
            f"{absent[0]!r} occurs in no row" if absent else f"{len(order)} labels, {len(set(order))} of them distinct"
        )
        raise UsageError(
            f"data.labels={order}: {what}\n  expected: {number} labels that column {name!r} holds, each once"
        )
    return tuple(order)


def _head_for_text(column: np.ndarray) -> str:
    if not is_text(column):
        return ""
    return f"; for labels choose head={'bernoulli' if len(set(column.tolist())) == 2 else 'categorical'}"


def _two_labels(table: Table, name: str) -> tuple[str, ...]:
    column = table.columns[name]
    if column.dtype.kind == "b":
        return BOOLEANS
    if not is_text(column):
        values = numbers(table, name, "data.target")
        distinct = np.unique(values)
        remedy = "recode them to 0 and 1" if len(distinct) == 2 else "for more than two labels choose head=categorical"
        good = (values == 0) | (values == 1)
        remedy = "correct the rows" if good.mean() > 0.5 and len(distinct) > 2 and not _whole(values) else remedy
        check(table, name, "data.target", good, f"0 and 1 alone; {remedy}")
        return ("0", "1")
    levels, code = factorize(column)
    if len(levels) != 2:
        shown = ", ".join(f"{level!r} in {table.where(code == k, limit=1)}" for k, level in enumerate(levels[:5]))
        raise UsageError(
            f"{table.origin}: column {name!r} (data.target) holds {len(levels)} labels: {shown}"
            "\n  expected: two labels" + ("; for more choose head=categorical" if len(levels) > 2 else "")
        )
    return tuple(levels)


def _whole(values: np.ndarray) -> bool:
    return np.array_equal(values, np.floor(values))
