"""The distinct values of a column as sorted strings, and a column as numbers or as codes of such levels."""

import warnings
from collections.abc import Sequence

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.table import Table

MAX_SHOWN = 10

BOOLEANS = ("False", "True")


def is_text(column: np.ndarray) -> bool:
    """Whether the column holds strings."""
    return column.dtype.kind in "OUT"


def factorize(column: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The sorted distinct values as strings, and each row's position among them.

    Values that are all numbers are sorted as numbers, and whole numbers are written without `.0`.
    """
    if is_text(column):
        levels = _sorted(list(set(column.tolist())))
        position = {level: code for code, level in enumerate(levels)}
        return levels, np.fromiter((position[value] for value in column.tolist()), dtype=np.int64, count=len(column))
    values, codes = np.unique(column, return_inverse=True)
    return [written(value) for value in values.tolist()], codes.astype(np.int64)


def codes(table: Table, name: str, levels: Sequence[str], setting: str, unseen: bool = False) -> np.ndarray:
    """Each row's position among `levels`, int64.

    Args:
        table: holds the column.
        name: of the column.
        levels: sorted, as strings.
        setting: by which the user gave the column its role.
        unseen: whether a value that is not among the levels becomes -1, with a warning.

    Raises:
        UsageError: a value that is not among them, or missing.
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
    """A column as float64; booleans become 0 and 1.

    Raises:
        UsageError: text, or a value that is not finite.
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
    """Refuses a column with missing cells.

    Raises:
        UsageError: naming the rows.
    """
    if name in table.holes:
        hole = table.holes[name]
        raise UsageError(
            f"{table.origin}: column {name!r} ({setting}) has {int(hole.sum())} missing values\n  {table.where(hole)}"
            "\n  fill them, or drop these rows: data.missing=drop"
        )


def check(table: Table, name: str, setting: str, good: np.ndarray, expected: str) -> None:
    """Refuses a column with rows that are not good.

    Raises:
        UsageError: naming the rows and the first value.
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
    """A value as the string that stands for it among levels: whole numbers without `.0`."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def _sorted(levels: list[str]) -> list[str]:
    if all(is_number(level) for level in levels):
        return sorted(levels, key=lambda level: (float(level), level))
    return sorted(levels)


def is_number(text: str) -> bool:
    """Whether text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def are_text(levels: Sequence[str]) -> bool:
    """Whether some level is not a number as numbers are written, so that a column of them has to be read as text."""
    return tuple(levels) != BOOLEANS and any(not is_number(one) or one != written(float(one)) for one in levels)
