"""Conversion of Arrow columns to the columns of a Table: float64, booleans or text, without infinite values."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlefw.errors import UsageError
from mlefw.reading.arrow_text import encoded, is_missing, is_text, moments, strings
from mlefw.reading.cells import Cells, Missing
from mlefw.reading.days import days_of, days_of_moments, is_date
from mlefw.reading.table import Table
from mlefw.reading.text_numbers import numbers_in_text

EXACT = 2**53
"""Largest integer up to which every integer is a float64."""


def joined(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The pieces of a column as one array."""
    pieces = list(pieces)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def to_table(
    columns: Iterable[tuple[str, Iterable[pa.ChunkedArray]]],
    place: Table,
    cells: Cells,
    keep: Callable[[Iterable[np.ndarray]], np.ndarray] = joined,
) -> Table:
    """A Table of Arrow columns.

    Args:
        columns: name and values of each column, in pieces of one type; both may be iterators, so that a source can read
            one piece at a time.
        place: a Table without columns that says where the rows come from.
        cells: how cells are read.
        keep: makes one array from the pieces of a column.

    Raises:
        UsageError: a column that is neither numbers, booleans nor text; numbers in text that cannot be read; missing or
            infinite values; no rows.
    """
    if cells.missing not in get_args(Missing):
        raise UsageError(
            f"data.missing={cells.missing} is not known\n  expected one of: {', '.join(get_args(Missing))}"
        )
    plain: dict[str, np.ndarray] = {}
    holes: dict[str, np.ndarray] = {}
    orders: dict[str, tuple[str, ...]] = {}
    dates: list[str] = []
    for name, pieces in columns:
        parts: list[np.ndarray] = []
        values = keep(_plain(name, pieces, place, parts, cells, orders, dates))
        if values.dtype.kind == "f":
            _warn_of_large_integers(name, values, place)
        if _is_index(name, values, place):
            continue
        plain[name], hole = values, joined(parts)
        if hole.any():
            holes[name] = hole
    kept = {name: hole for name, hole in holes.items() if name in cells.lenient}
    table = replace(place, columns=plain, holes=kept, orders=orders, dates=tuple(dates))
    if table.num_rows == 0:
        raise UsageError(f"{place.origin} has 0 data rows\n  expected: a table with at least one row")
    _check_infinite(table, holes, cells.open)
    _warn_of_names(table)
    rest = {name: hole for name, hole in holes.items() if name not in cells.lenient}
    return _without_holes(table, rest, cells.missing, keep)


def is_index_name(name: str) -> bool:
    """Whether a column name is one that pandas gives to an unnamed index."""
    return not name or re.fullmatch(r"__index_level_\d+__", name) is not None


def empty_table(names: Iterable[str], place: Table) -> Table:
    """A table with these columns and without rows."""
    return replace(place, columns={name: np.empty(0) for name in names})


def check_names(names: list[str], origin: str) -> None:
    """Check that no column name occurs twice.

    Raises:
        UsageError: a name occurs twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = [position + 1 for position, name in enumerate(names) if name == twice[0]]
        raise UsageError(f"{origin}: column name {twice[0]!r} occurs twice, in columns {places}\n  rename one of them")


def _plain(
    name: str,
    pieces: Iterable[pa.ChunkedArray],
    place: Table,
    holes: list[np.ndarray],
    cells: Cells,
    orders: dict[str, tuple[str, ...]],
    dates: list[str],
) -> Iterator[np.ndarray]:
    """The values of each piece of a column.

    Masks of missing cells go to `holes`, an order of levels to `orders`, the name of a column of dates to `dates`.
    """
    pieces = iter(pieces)
    first = next(pieces)
    kind = first.type
    if name in cells.days and is_date(kind):
        dates.append(name)
        for column in chain([first], pieces):
            holes.append(_flags(column.is_null()))
            yield days_of(column)
        return
    if name == cells.time and pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        for column in chain([first], pieces):
            holes.append(_flags(column.is_null()))
            number = pa.int32() if kind.bit_width == 32 else pa.int64()
            yield _values(_filled(column.cast(number), 0)).astype(np.int64)
        return
    if is_text(kind) or pa.types.is_dictionary(kind) or _is_named_date(name, kind, cells):
        # Whether a text column holds numbers depends on all of its values.
        text = encoded(chain([first], pieces))
        if is_text(kind) and name in cells.days and (days := days_of_moments(text, name, place)) is not None:
            dates.append(name)
            holes.append(is_missing(text))
            yield days
            return
        values, hole = _of_text(name, text, place, cells, is_text(kind))
        if pa.types.is_dictionary(kind) and kind.ordered:
            orders[name] = tuple(encoded([first]).dictionary.to_pylist())
        holes.append(hole)
        yield values
        return
    for column in chain([first], pieces):
        values = _values_of(name, column, place, exact=name == cells.identifier)
        hole = _flags(column.is_null(nan_is_null=pa.types.is_floating(kind)))
        if name in cells.open:
            hole = hole | (values == cells.open[name])
        holes.append(hole)
        yield values


def _is_named_date(name: str, kind: pa.DataType, cells: Cells) -> bool:
    """Whether the dates of a column are names of levels or groups."""
    return (pa.types.is_temporal(kind) and name in cells.text) or (is_date(kind) and name in cells.dated)


def _of_text(
    name: str, column: pa.DictionaryArray, place: Table, cells: Cells, perhaps_numbers: bool
) -> tuple[np.ndarray, np.ndarray]:
    if perhaps_numbers and name == cells.time and (dates := moments(column)) is not None:
        return dates, is_missing(column)
    is_named_date = name in cells.dated and moments(column) is not None
    if perhaps_numbers and not is_named_date and name not in cells.text and name != cells.identifier:
        read = numbers_in_text(name, column, place, cells.form, cells.on_purpose, name in cells.numeric)
        if read is not None:
            values, missing = read
            return values, missing | np.isnan(values) | (values == cells.open.get(name, np.nan))
    return strings(column), is_missing(column)


def _values_of(name: str, column: pa.ChunkedArray, place: Table, exact: bool) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        return _flags(_filled(column, False))
    if exact and pa.types.is_integer(kind):
        return _values(_filled(column, 0))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _values(_filled(column.cast(pa.float64(), safe=False), np.nan))
    raise UsageError(
        f"{place.origin}: column {name!r} holds {kind}, neither numbers, booleans nor text"
        "\n  turn it into numbers (days since a date, say), or leave it out: list the others in data.features"
        + (f"\n  as a category: data.categorical=[{name}]" if pa.types.is_temporal(kind) else "")
        + (f"\n  as a number of days: a formula with the term {name}" if is_date(kind) else "")
    )


def _filled(column: pa.ChunkedArray, value: bool | float | str) -> pa.ChunkedArray:
    """The column with missing values replaced; a null count avoids `fill_null`, for which pyarrow imports pandas."""
    return column.fill_null(value) if column.null_count else column


def _flags(column: pa.ChunkedArray) -> np.ndarray:
    return _values(column.cast(pa.uint8())).astype(bool)


def _values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A view of numbers without missing values; `to_numpy` would import pandas, which takes 0.2 s."""
    return np.from_dlpack(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def _is_index(name: str, values: np.ndarray, place: Table) -> bool:
    """Whether a column is the unnamed row number that pandas and R write.

    Raises:
        UsageError: any other column has an empty name.
    """
    if not is_index_name(name):
        return False
    count = np.arange(len(values))
    if values.dtype.kind in "fiu" and any(np.array_equal(values, count + first) for first in (0, 1)):
        warnings.warn(f"{place.origin}: the unnamed column that counts the rows is not used", UserWarning, stacklevel=2)
        return True
    if name:
        return False
    raise UsageError(f"{place.origin}: a column has an empty name\n  name every column (pandas: index=False)")


def _check_infinite(table: Table, holes: dict[str, np.ndarray], open_ends: Mapping[str, float]) -> None:
    for name in table.one_by_one(table.columns):
        values = table.columns[name]
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        infinite = ~np.isfinite(values) & ~holes.get(name, False)
        if infinite.any():
            raise UsageError(
                f"{table.origin}: column {name!r} holds an infinite value, or one beyond 1e308"
                f"\n  {table.where(infinite)}: {values[np.argmax(infinite)]}\n  expected: finite numbers"
                + (f"; for no bound {open_ends[name]} or an empty cell" if name in open_ends else "")
            )


def _without_holes(
    table: Table, holes: dict[str, np.ndarray], missing: Missing, keep: Callable[[Iterable[np.ndarray]], np.ndarray]
) -> Table:
    if not holes:
        return table
    anywhere = np.logical_or.reduce(list(holes.values()))
    if missing != "drop":
        shown = [f"  column {name!r}: {int(hole.sum())}, {table.where(hole)}" for name, hole in list(holes.items())[:8]]
        lines = [f"{table.origin} has missing values", *shown]
        lines += [f"  and {len(holes) - 8} more columns"] if len(holes) > 8 else []
        remedy = "fill them, or drop these rows: data.missing=drop"
        remedy += "; of features, data.missing=impute fills them" if missing == "error" else ""
        raise UsageError("\n".join([*lines, f"  {remedy}"]))
    if anywhere.all():
        raise UsageError(f"{table.origin}: every row has a missing value, 0 data rows are left\n  fill them")
    warnings.warn(
        f"{table.origin}: {int(anywhere.sum())} rows with missing values are dropped", UserWarning, stacklevel=2
    )
    index = np.flatnonzero(~anywhere)
    columns = {name: keep([column[index]]) for name, column in table.columns.items()}
    return replace(replace(table, columns={}).take(index), columns=columns)


def _warn_of_large_integers(name: str, values: np.ndarray, place: Table) -> None:
    # Most columns have no large values, which the extremes show without a temporary array.
    if not (len(values) and max(np.fmax.reduce(values), -np.fmin.reduce(values)) > EXACT):
        return
    large = np.abs(values) > EXACT
    if large.any() and np.array_equal(values, np.floor(values), equal_nan=True) and np.isfinite(values[large]).all():
        warnings.warn(
            f"{place.origin}: column {name!r} holds integers above 2**53, which 64 bit numbers round "
            f"({place.where(large)}); an identifier belongs in data.id or data.categorical",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_names(table: Table) -> None:
    stripped = Counter(name.strip() for name in table.columns)
    alike = [name for name in table.columns if stripped[name.strip()] > 1]
    if alike:
        warnings.warn(f"{table.origin}: columns {alike} differ by spaces alone", UserWarning, stacklevel=2)


def is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each cell of a text column holds only white space."""
    return pc.equal(pc.utf8_trim_whitespace(column), "")
