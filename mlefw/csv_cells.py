"""Text columns of a CSV file that are meant as numbers: read where that is safe, refused with the reason where not."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlefw.errors import UsageError
from mlefw.rows import Table

MISSING_WORDS = ("", "NA", "NaN", "nan", "null", "N/A")
"""Cells that stand for a missing number; in a text column only the blank cell is missing."""

SHARE = 0.9
FEWEST = 5


class NumberFormat(NamedTuple):
    """How numbers are written in the file."""

    decimal: str = "."
    thousands: str | None = None

    @property
    def other(self) -> str:
        """The sign that groups thousands where it does not separate decimals."""
        return self.thousands or ("." if self.decimal == "," else ",")

    def parse(self, cell: str) -> float | None:
        """The number a cell holds, or None."""
        if self.thousands and self.looks_grouped(cell):
            cell = cell.replace(self.thousands, "")
        plain = (
            rf"[-+]?(\d+{re.escape(self.decimal)}?\d*|{re.escape(self.decimal)}\d+)(e[-+]?\d+)?|[-+]?inf(inity)?|nan"
        )
        return float(cell.replace(self.decimal, ".")) if re.fullmatch(plain, cell, re.IGNORECASE) else None

    def looks_grouped(self, cell: str) -> bool:
        """Whether the cell is a number with separated thousands."""
        other, decimal = re.escape(self.other), re.escape(self.decimal)
        return re.fullmatch(rf"[-+]?\d{{1,3}}({other}\d{{3}})+({decimal}\d*)?", cell) is not None

    def looks_swapped(self, cell: str) -> bool:
        """Whether the cell is a number with the other decimal sign."""
        return re.fullmatch(rf"[-+]?\d*{re.escape(self.other)}\d+(e[-+]?\d+)?", cell, re.IGNORECASE) is not None


def looks_hexadecimal(cell: str) -> bool:
    """Whether the cell is a number such as 0x1F."""
    return re.fullmatch(r"[-+]?0x[0-9a-f]+", cell, re.IGNORECASE) is not None


def numbers_in_text(name: str, column: pa.ChunkedArray, place: Table, numbers: NumberFormat) -> pa.ChunkedArray:
    """The column as float64 where every cell is a number, or unchanged where it is text.

    Raises:
        UsageError: nine cells in ten are numbers but some are not, or are written in another format.
    """
    encoded = column.combine_chunks().dictionary_encode()
    cells = [str(value).strip() for value in encoded.dictionary.to_pylist()]
    index = np.asarray(encoded.indices.fill_null(0), dtype=np.int64)
    values = [numbers.parse(cell) for cell in cells]
    missing = np.array([cell in MISSING_WORDS for cell in cells], dtype=bool)[index]
    number = np.array([value is not None for value in values], dtype=bool)[index] & ~missing
    total = int((~missing).sum())
    if total and number.sum() == total:
        floats = np.array([np.nan if value is None else value for value in values])[index]
        return pa.chunked_array([pa.array(floats, mask=missing)])

    def mostly(test: Callable[[str], bool]) -> np.ndarray | None:
        found = np.array([test(cell) for cell in cells], dtype=bool)[index] & ~missing & ~number
        count = int((found | number).sum())
        return found if found.any() and count >= SHARE * total and (count >= FEWEST or count == total) else None

    for test, what, remedy in (
        (looks_hexadecimal, "hexadecimal numbers", "write them in decimal"),
        (numbers.looks_grouped, "numbers with separated thousands", f"set data.thousands='{numbers.other}'"),
        (numbers.looks_swapped, f"numbers with a decimal '{numbers.other}'", f"set data.decimal='{numbers.other}'"),
    ):
        if (found := mostly(test)) is not None:
            raise UsageError(_message(name, f"holds {what}", place, found, cells, index, remedy))
    if number.sum() >= max(FEWEST, SHARE * total):
        raise UsageError(
            _message(
                name, "holds numbers but for a few cells", place, ~number & ~missing, cells, index, "mend the cells"
            )
        )
    return column


def _message(
    name: str, what: str, place: Table, found: np.ndarray, cells: list[str], index: np.ndarray, remedy: str
) -> str:
    first = cells[index[int(np.argmax(found))]][:40]
    return (
        f"{place.origin}: column {name!r} {what}\n  {place.where(found)}: {first!r}"
        f"\n  {remedy}, or take the column as text: data.categorical=[{name}]"
    )
