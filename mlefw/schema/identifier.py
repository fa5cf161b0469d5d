"""Detection of columns that number or name the rows of a table, which are useless for new rows."""

import re
import warnings

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.table import Table

MAX_LEVELS = 100
"""A category with more levels than this, and than half of the rows, is an identifier or free text."""

FEWEST_ROWS = 10
"""Fewest rows in which nearly as many levels of text indicate a key."""

FEWEST_COUNTED = 20
"""Fewest rows in which consecutive numbers indicate row numbers; fewer may be doses, or the months of a year."""

FEWEST_NAMED = 5
"""Fewest rows in which consecutive numbers indicate row numbers if the column is also named like row numbers."""

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
    """Refuse a feature that numbers the rows, like the first column of many CSV exports.

    That is a column with n consecutive whole numbers in n rows, in any order, which begin at 0 or 1, if there are 20
    rows or more and other features; or if it is named like row numbers (`id`, `rownames`, `case no`), from five rows
    on. If it is named `id`, `index` or `key`, different whole numbers suffice. A column named like a time (`t`, `week`)
    is kept, with a warning.

    Args:
        table: the table with the column, without missing cells.
        name: name of the column.
        is_only: whether it is the only feature.
        grouped: whether rows have weights, so that a row may stand for all rows with one value of a count.

    Raises:
        UsageError: the column numbers the rows.
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
    """Refuse a category with nearly as many levels as rows: an identifier, or free text.

    Args:
        table: the table with the column.
        name: name of the column.
        num_levels: number of its levels.
        insisted: whether the user listed it by name, or rows have weights.

    Raises:
        UsageError: the column has too many levels.
    """
    is_key = table.num_rows >= FEWEST_ROWS and num_levels >= 0.9 * table.num_rows and not insisted
    if num_levels > max(MAX_LEVELS, table.num_rows / 2) or is_key:
        raise UsageError(
            f"{table.origin}: column {name!r} has {num_levels} levels in {table.num_rows} rows"
            "\n  an identifier or free text? name it in data.id, or leave it out of data.features"
        )


def _first_of_consecutive(values: np.ndarray) -> float | None:
    """The lowest value if the n values are n consecutive whole numbers in any order, else None."""
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
