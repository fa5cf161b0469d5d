"""Conformance checks of a data source."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlefw.data.base import Source
from mlefw.reading.table import Table
from mlefw.reading.text_table import TextTable
from mlefw.testing.conformance import Check, hold


@dataclass(frozen=True)
class SourceCase:
    """A data source with at least two rows."""

    source: Source


def check_source(source: Source) -> None:
    """Check a data source against all rules of its kind.

    Args:
        source: a source with at least two rows.

    Raises:
        ConformanceError: the source breaks rules; the message names them, and what was found and expected.
    """
    hold(source, SourceCase(source), CHECKS)


def columns_are_of_one_length(case: SourceCase) -> Iterator[str]:
    """Every column, and every mask of missing cells, is an array (num_rows,) of numbers, booleans or text."""
    for name, column in case.source.read().columns.items():
        if not isinstance(column, np.ndarray) or column.dtype.kind not in "biufO":
            kind = getattr(column, "dtype", type(column).__name__)
            yield f"column {name!r} is of {kind}, expected an array of numbers, booleans or objects that are text"
        elif column.dtype.kind == "O" and not all(isinstance(value, str) for value in _known(case, name)):
            yield f"column {name!r} of objects holds something that is not text"
    table = case.source.read()
    for name, hole in table.holes.items():
        if name not in table.columns or np.shape(hole) != (table.num_rows,) or hole.dtype != bool:
            yield f"the mask of missing cells of {name!r} is {np.shape(hole)}, expected {(table.num_rows,)} of booleans"


def _known(case: SourceCase, name: str) -> np.ndarray:
    table = case.source.read()
    column = table.columns[name]
    return column[~table.holes[name]] if name in table.holes else column


def reading_twice_gives_the_same_rows(case: SourceCase) -> Iterator[str]:
    """`read` returns equal columns and rows each time, because a resumed run reads again."""
    yield from _compared(case.source.read(), case.source.read(), "read twice")


def blocks_are_the_rows_in_order(case: SourceCase) -> Iterator[str]:
    """The concatenated tables of `read_blocks` equal the table of `read`, and their share rises to one."""
    whole, blocks = case.source.read(), list(case.source.read_blocks())
    row = np.concatenate([block.row for block in blocks]) if blocks else np.empty(0, dtype=int)
    # Positions also count rows that were dropped.
    if len(row) != whole.num_rows or not bool((np.diff(row) > 0).all()):
        yield f"the blocks hold {len(row)} rows, expected {whole.num_rows} with positions in order"
        return
    shares = [block.share for block in blocks]
    if sorted(shares) != shares or abs(shares[-1] - 1) > 1e-9:
        yield f"the shares of the blocks are {shares}, expected to rise to 1"
    for name in whole.columns:
        pieces = [block.table.columns.get(name, np.empty(0)) for block in blocks]
        if not _same(np.concatenate(pieces), whole.columns[name]):
            yield f"column {name!r} of the blocks is not that of read"


def splits_share_out_the_rows(case: SourceCase) -> Iterator[str]:
    """Random splits hold every row once, and equal seeds equal ones; those of a text score a token once at most."""
    table = case.source.read()
    parts = case.source.parts(table)
    if isinstance(table, TextTable):
        yield from _shared_tokens(table, [part for part, _ in parts.values() if isinstance(part, TextTable)])
        return
    drawn = np.concatenate([index for part, index in parts.values() if part is table])
    if not np.array_equal(np.sort(drawn), np.arange(table.num_rows)):
        yield f"the splits hold {len(drawn)} rows, {len(set(drawn.tolist()))} of them different, of {table.num_rows}"
    again = case.source.parts(table)
    if any(not np.array_equal(index, again[split][1]) for split, (_, index) in parts.items()):
        yield "two splits with the same seed differ"


def _shared_tokens(table: TextTable, parts: list[TextTable]) -> Iterator[str]:
    num_tokens = int(table.corpus.spans[-1, 1])
    scored = np.zeros(num_tokens + 1, dtype=int)
    for windows in (part.windows for part in parts if part.corpus is table.corpus):
        np.add.at(scored, (windows.start + windows.skip).numpy() + 1, 1)
        np.add.at(scored, (windows.start + windows.stop).numpy() + 1, -1)
    most = int(scored.cumsum().max())
    if most != 1:
        yield f"the splits score a token {most} times, expected once at most"


def rows_can_be_named(case: SourceCase) -> Iterator[str]:
    """`origin` is not empty, and row numbers are distinct, for messages."""
    table = case.source.read()
    numbers = table.row_numbers(np.arange(table.num_rows))
    if not table.origin or len(set(numbers.tolist())) != table.num_rows:
        yield f"origin is {table.origin!r}, and {len(set(numbers.tolist()))} of {table.num_rows} row numbers differ"


def _compared(one: Table, other: Table, how: str) -> Iterator[str]:
    if list(one.columns) != list(other.columns):
        yield f"{how} it has columns {list(one.columns)} and {list(other.columns)}"
        return
    for name, column in one.columns.items():
        if not _same(column, other.columns[name]):
            yield f"{how} column {name!r} differs"


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


CHECKS: tuple[Check[SourceCase], ...] = (
    columns_are_of_one_length,
    reading_twice_gives_the_same_rows,
    blocks_are_the_rows_in_order,
    splits_share_out_the_rows,
    rows_can_be_named,
)
