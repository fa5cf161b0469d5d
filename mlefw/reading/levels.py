"""Levels of a column, its distinct values as sorted strings; and columns as numbers or as codes of levels."""

import warnings
from collections.abc import Sequence

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.table import Table

MAX_SHOWN = 10
"""Most levels that a message lists."""

BOOLEANS = ("False", "True")
"""Levels of a boolean column."""


def is_text(column: np.ndarray) -> bool:
    """Whether the column holds strings."""
    return column.dtype.kind in "OUT"


def factorize(column: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The levels of a column (n,), and each row's position among them, (n,) int64.

    Levels that are all numbers are sorted as numbers, and whole numbers are written without `.0`.
    """
    if is_text(column):
        levels = _sorted(list(set(column.tolist())))
        position = {level: code for code, level in enumerate(levels)}
        return levels, np.fromiter((position[value] for value in column.tolist()), dtype=np.int64, count=len(column))
    values, codes = np.unique(column, return_inverse=True)
    return [written(value) for value in values.tolist()], codes.astype(np.int64)


def codes(table: Table, name: str, levels: Sequence[str], setting: str, unseen: bool = False) -> np.ndarray:
    """Each row's position among `levels`, (n,) int64.

    Args:
        table: the table with the column.
        name: name of the column.
        levels: the known levels, sorted.
        setting: the setting that gave the column its role, for messages.
        unseen: whether an unknown value becomes -1, with a warning.

    Raises:
        UsageError: a value is missing, or unknown without `unseen`.
    """
    check_whole(table, name, setting)
    found, code = factorize(table.columns[name])
    position = {level: known for known, level in enumerate(levels)}
    known: np.ndarray = np.array([position.get(level, -1) for level in found], dtype=np.int64)[code]
    new = known < 0
    if unseen and new.any():
        values = [found[k] for k in np.unique(code[new])]
        shown = ", ".join(map(repr, values[:MAX_SHOWN])) + (", …" if len(values) > MAX_SHOWN else "")
        message = f"{table.origin}: column {name!r} holds levels that the training data do not: {shown}"
        warnings.warn(f"{message}; {table.where(new)}", UserWarning, stacklevel=2)
    elif new.any():
        shown = ", ".join(repr(level) for level in levels[:MAX_SHOWN])
        more = f" and {len(levels) - MAX_SHOWN} more" if len(levels) > MAX_SHOWN else ""
        raise UsageError(
            f"{table.origin}: column {name!r} ({setting}) holds a value that the training data do not"
            f"\n  {table.where(new)}: {found[code[np.argmax(new)]]!r}\n  known: {shown}{more}"
            + ("\n  data.unseen=reference or data.unseen=ignore lets it pass" if setting != "data.target" else "")
        )
    return known


def numbers(table: Table, name: str, setting: str, hint: str = "") -> np.ndarray:
    """A column as float64, (n,); booleans become 0 and 1.

    Args:
        table: the table with the column.
        name: name of the column.
        setting: the setting that gave the column its role, for messages.
        hint: an addition to the message for a column of text.

    Raises:
        UsageError: the column holds text, or a missing or infinite value.
    """
    check_whole(table, name, setting)
    column = table.columns[name]
    if is_text(column):
        text = np.array([not is_number(str(value)) for value in column.tolist()], dtype=bool)
        text = text if text.any() else np.ones(len(column), dtype=bool)
        raise UsageError(
            f"{table.origin}: column {name!r} ({setting}) holds text\n  {table.where(text)}: "
            f"{str(column[np.argmax(text)])[:40]!r}\n  expected: numbers{hint}"
        )
    values: np.ndarray = column.astype(np.float64, copy=False)
    check(table, name, setting, np.isfinite(values), "finite numbers")
    return values


def check_whole(table: Table, name: str, setting: str) -> None:
    """Check that a column has no missing cells.

    Raises:
        UsageError: a cell is missing; the message names rows.
    """
    if name in table.holes:
        hole = table.holes[name]
        raise UsageError(
            f"{table.origin}: column {name!r} ({setting}) has {int(hole.sum())} missing values\n  {table.where(hole)}"
            "\n  fill them, or drop these rows: data.missing=drop"
        )


def check(table: Table, name: str, setting: str, good: np.ndarray, expected: str) -> None:
    """Check that `good` (n,) holds in every row of a column; `expected` says what was expected, for the message.

    Raises:
        UsageError: it does not hold in some rows; the message names rows and the first value.
    """
    if not good.all():
        first = table.columns[name][np.argmin(good)]
        raise UsageError(
            f"{table.origin}: column {name!r} ({setting}) holds {_shown(first)}"
            f"\n  {table.where(~good)}\n  expected: {expected}"
        )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) and abs(float(value)) >= 1e16 else written(value)


def written(value: object) -> str:
    """The level of a value: its text, a whole number without `.0`."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def _sorted(levels: list[str]) -> list[str]:
    if all(is_number(level) for level in levels):
        return sorted(levels, key=lambda level: (float(level), level))
    return sorted(levels)


def is_number(text: str) -> bool:
    """Whether a text is a finite number in Python's notation."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def are_text(levels: Sequence[str]) -> bool:
    """Whether levels are of a text column: some level is not a number as `written` writes it."""
    return tuple(levels) != BOOLEANS and any(not is_number(one) or one != written(float(one)) for one in levels)
