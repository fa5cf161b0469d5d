"""Columns that number or name the rows of a table: they say nothing of a row that is not in it."""

import re
import warnings

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.table import Table

MAX_LEVELS = 100
"""A category with more levels than this, and than half of the rows, is an identifier or free text."""

FEWEST_ROWS = 10
"""Rows from which on nearly as many levels of a text tell a key."""

FEWEST_COUNTED = 20
"""Rows that are counted by chance in no table: a design of a few doses, or the months of a year, is."""

FEWEST_NAMED = 5
"""The same where the column is also called as row numbers are."""

_KEY = re.compile(
    r"(.*[\W_])?(id|uid|uuid|guid|key|pk|idx|index|rows?|rownames?|unnamed.*)"
    r"|(row|obs|observation|case|record|user|patient|customer|client|subj|subject|person|item|order|policy|claim|[puost])"
    r"[\W_]*(id|names?|no|nr|num|numbers?|index)",
    re.IGNORECASE,
)
_CAMEL = re.compile(r".*[a-z0-9](Id|ID|Key|Index)")
_NUMBER = re.compile(
    r"(.*[\W_])?(no|nr|num|numbers?|obs|observations?|case|record|serial|seq|sequence|counter|count|sample|subject|patient"
    r"|person|participant|respondent|passenger|customer|specimen|plot|level_0)|#|\.\.\.\d+|",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"(.*[\W_])?(t|time|trend|period|year|quarter|month|week|day|hour|minute|second|age|dose|epoch|round)s?([\W_].*)?",
    re.IGNORECASE,
)


def check_numbered(table: Table, name: str, is_only: bool, grouped: bool) -> None:
    """Refuse a feature that numbers the rows, as the first column of a CSV export does.

    That is a column which holds each of n consecutive whole numbers once in its n rows, in any order, where they begin
    at 0 or 1 and there are 20 rows or more and other features; or where it is called as row numbers are, as `id`,
    `rownames` or `case no`, from five rows on. Called `id`, `index` or `key`, whole numbers that differ from row to row
    are enough. A column called as a time is, as `t` or `week`, is kept, with a warning.

    Args:
        table: holds the column, without missing cells.
        name: of the column.
        is_only: whether it is the only feature.
        grouped: whether a row stands for several: the rows may be the values of a count then.

    Raises:
        UsageError: naming the column and what it holds.
    """
    values, is_key = table.columns[name], _KEY.fullmatch(name) is not None or _CAMEL.fullmatch(name) is not None
    is_called = is_key or _NUMBER.fullmatch(name) is not None
    if len(values) < (FEWEST_NAMED if is_called else FEWEST_COUNTED):
        return
    lowest = _first_of_consecutive(values)
    if lowest is None:
        if is_key and len(values) >= FEWEST_ROWS and _is_whole(values) and len(np.unique(values)) == len(values):
            raise _refused(table, name, f"tells the rows apart: {len(values)} whole numbers, all different")
        return
    if not is_called and (lowest not in (0, 1) or is_only or grouped):
        return
    what = f"holds each number from {lowest:.0f} to {lowest + len(values) - 1:.0f} once"
    if not is_called and _TIME.fullmatch(name) is not None:
        message = f"{table.origin}: column {name!r} {what}; if it only numbers the rows, name it in data.id"
        warnings.warn(message, UserWarning, stacklevel=2)
        return
    raise _refused(table, name, f"numbers the rows: it {what}")


def check_levels(table: Table, name: str, num_levels: int, insisted: bool) -> None:
    """Refuse a text that names the rows, or is prose: hardly two rows have the same.

    Args:
        table: holds the column.
        name: of the column.
        num_levels: number of its distinct values.
        insisted: whether the user listed it by name, or a row stands for several.

    Raises:
        UsageError: naming the column.
    """
    is_key = table.num_rows >= FEWEST_ROWS and num_levels >= 0.9 * table.num_rows and not insisted
    if num_levels > max(MAX_LEVELS, table.num_rows / 2) or is_key:
        raise UsageError(
            f"{table.origin}: column {name!r} has {num_levels} levels in {table.num_rows} rows"
            "\n  an identifier or free text? name it in data.id, or leave it out of data.features"
        )


def _first_of_consecutive(values: np.ndarray) -> float | None:
    """The lowest of the values where they are n consecutive whole numbers in any order, else None."""
    lowest, highest = float(values.min()), float(values.max())
    if not (highest - lowest == len(values) - 1 and lowest.is_integer()):
        return None
    seen = np.zeros(len(values), dtype=bool)
    if not _is_whole(values):
        return None
    seen[(values - lowest).astype(np.int64)] = True
    return lowest if seen.all() else None


def _is_whole(values: np.ndarray) -> bool:
    return np.array_equal(values, np.floor(values))


def _refused(table: Table, name: str, what: str) -> UsageError:
    return UsageError(
        f"{table.origin}: column {name!r} {what}"
        "\n  name it in data.id, or leave it out; a feature all the same where data.features=[…] lists it"
    )
