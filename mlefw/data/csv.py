"""Tables from CSV files, plain or gzip."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlefw.arrow_table import check_names, is_blank, to_table
from mlefw.csv_cells import MISSING_WORDS, NumberFormat, numbers_in_text
from mlefw.csv_text import broken_record, check_delimiter, record_lines, to_utf8
from mlefw.data.base import Source
from mlefw.data_file import read_bytes, regular_file
from mlefw.errors import UsageError
from mlefw.rows import Table

BLOCK_BYTES = 2**25
"""A record must fit into a block: fifty thousand columns are about a megabyte."""

INTEGER = r"0|-?[1-9][0-9]{0,17}"


@dataclass(kw_only=True)
class Csv(Source):
    """Reads CSV files strictly: equal numbers of fields, no guessing, one message per mistake.

    Rows are named in messages by their line in the file. Blank cells are missing values; so are NA, NaN, null and N/A
    among numbers.

    Attributes:
        path: file of the rows to split.
        validation_path: file of the validation rows.
        test_path: file of the test rows.
        delimiter: sign between fields.
        decimal: decimal sign.
        thousands: sign that groups digits.
        encoding: text encoding.
        header: whether the first line names the columns, else they are f0, f1, ...
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    header: bool = True

    def __post_init__(self) -> None:
        """Checks the signs.

        Raises:
            UsageError: a delimiter or decimal sign that is not one ASCII character, or both the same.
        """
        self.delimiter = {"\\t": "\t", "tab": "\t"}.get(self.delimiter, self.delimiter)
        for setting in ("delimiter", "decimal"):
            sign = getattr(self, setting)
            if len(sign) != 1 or not sign.isascii() or sign in '"\r\n':
                raise UsageError(f"data.{setting}={sign!r} is not one ASCII character, such as ',' or ';'")
        if self.decimal in (self.delimiter, self.thousands):
            raise UsageError(f"data.decimal={self.decimal!r} is also the delimiter or groups thousands: choose another")

    def read(self) -> Table:
        """All rows of `path`."""
        return self._load(self.path, "data.path")

    def read_validation(self) -> Table | None:
        """All rows of `validation_path`, if set."""
        return self._load(self.validation_path, "data.validation_path") if self.validation_path else None

    def read_test(self) -> Table | None:
        """All rows of `test_path`, if set."""
        return self._load(self.test_path, "data.test_path") if self.test_path else None

    def _load(self, path: str | None, setting: str) -> Table:
        file = regular_file(path, setting)
        origin = str(file)
        raw = to_utf8(read_bytes(file), origin, self.encoding, self.delimiter)
        check_delimiter(raw, origin, self.delimiter)
        arrow = self._parse(raw, origin)
        self._check_header(arrow.column_names, origin)
        place = Table({}, origin, 1 + self.header, record_lines(raw, self.header, arrow.num_rows))
        return to_table(self._columns(arrow, place), place, self.categorical or (), self.id, self.missing)

    def _parse(self, raw: bytes, origin: str) -> pa.Table:
        quoted = b'"' in raw
        # pyarrow closes a quote left open at the end of the file, and with it swallows the rows between
        broken = broken_record(raw, self.delimiter) if raw.count(b'"') % 2 else None
        text = dict.fromkeys([*(self.categorical or ()), *([self.id] if self.id else [])], pa.string())
        try:
            if broken is None:
                arrow = self._read(raw, quoted, text)
                if b"0x" not in raw.lower():
                    return arrow
                # pyarrow reads 0x1F as 31: let such columns come as text, to be refused by name
                numeric = [field.name for field in arrow.schema if pa.types.is_integer(field.type)]
                return self._read(raw, quoted, text | dict.fromkeys(numeric, pa.string()))
        except pa.ArrowInvalid as error:
            broken = broken_record(raw, self.delimiter) or str(error).splitlines()[0]
        raise UsageError(f"{origin}: {broken}\n  expected: equally many fields in every line, quotes closed")

    def _read(self, raw: bytes, quoted: bool, types: dict[str, pa.DataType]) -> pa.Table:
        return csv.read_csv(
            pa.py_buffer(raw),
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, autogenerate_column_names=not self.header),
            parse_options=csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=quoted),
            convert_options=csv.ConvertOptions(
                column_types=types, null_values=list(MISSING_WORDS), decimal_point=self.decimal
            ),
        )

    def _check_header(self, names: list[str], origin: str) -> None:
        formats = NumberFormat(self.decimal, self.thousands)
        if self.header and all(formats.parse(name.strip()) is not None for name in names):
            raise UsageError(
                f"{origin}: the first line holds numbers alone ({self.delimiter.join(names)[:60]})"
                "\n  expected: names of columns; without them set data.header=false, which names them f0, f1, ..."
            )
        if names.count("") > 1:
            raise UsageError(
                f"{origin}: {names.count('')} columns have an empty name\n  name every column in the first line"
            )
        check_names(names, origin)

    def _columns(self, arrow: pa.Table, place: Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
        formats = NumberFormat(self.decimal, self.thousands)
        for name in self.wanted(arrow.column_names):
            column = arrow.column(name)
            if pa.types.is_string(column.type):
                if name == self.id and pc.all(pc.match_substring_regex(column, f"^({INTEGER})$")).as_py():
                    column = column.cast(pa.int64())
                elif name != self.id and name not in (self.categorical or ()):
                    column = numbers_in_text(name, column, place, formats)
            if pa.types.is_string(column.type):
                column = pc.if_else(is_blank(column), pa.scalar(None, pa.string()), column)
            yield name, column
