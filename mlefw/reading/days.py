"""Dates as numbers: days since 1970-01-01, with the time of day as a fraction."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from mlefw.errors import UsageError
from mlefw.reading.arrow_text import is_missing, moments
from mlefw.reading.table import Table

_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
"""Units of time in a day."""

_MOST_ODD = 0.5
"""Share of distinct texts that are no dates up to which a column is one of dates with mistakes."""

_EPOCH = datetime(1970, 1, 1)


def is_date(kind: pa.DataType) -> bool:
    """Whether values of the type are dates, or dates with a time of day."""
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def days_of(column: pa.ChunkedArray) -> np.ndarray:
    """Dates as days, (n,) float64; NaN where one is missing. Times with a zone are those in UTC."""
    per_day = 1 if column.type == pa.date32() else _PER_DAY["ms" if column.type == pa.date64() else column.type.unit]
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    number = whole.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    missing = np.asarray(number.is_null().cast(pa.uint8()), dtype=bool)
    days = np.asarray(number.fill_null(0), dtype=np.int64) / per_day
    return np.where(missing, np.nan, days)


def days_of_moments(column: pa.DictionaryArray, name: str, place: Table) -> np.ndarray | None:
    """Texts in ISO 8601 as days, (n,) float64, NaN where one is missing; None where they are no dates.

    Raises:
        UsageError: most of them are dates, and some are not.
    """
    found, missing = moments(column) if len(column.dictionary) else None, is_missing(column)
    if found is not None:
        return np.where(missing, np.nan, found / _PER_DAY["us"])
    texts = column.dictionary.to_pylist()
    odd = np.array([not _is_moment(text) for text in texts], dtype=bool)
    if not odd.any() or odd.mean() > _MOST_ODD:
        return None
    code = np.asarray(column.indices.fill_null(0), dtype=np.int64)
    rows = odd[code] & ~missing
    raise UsageError(
        f"{place.origin}: column {name!r} holds dates, and what is none\n  {place.where(rows)}: "
        f"{texts[code[int(np.argmax(rows))]]!r}\n  expected: dates, such as 2024-05-31 or 2024-05-31 12:30"
    )


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def span(table: Table, expression: str, low: float, high: float) -> str:
    """A range of an expression for messages, `2 to 9`; of a column of dates `2020-01-01 to 2021-05-31`."""
    if expression.strip("` ") in table.dates:
        low_day, high_day = (_EPOCH + timedelta(days=end) for end in (low, high))
        return f"{low_day:%Y-%m-%d} to {high_day:%Y-%m-%d}"
    return f"{low:g} to {high:g}"
