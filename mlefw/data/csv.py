"""Tables from CSV files, plain or gzip, one or several."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlefw.data.base import Block, Source
from mlefw.errors import UsageError
from mlefw.reading.arrow import check_names, empty_table, is_blank, to_table
from mlefw.reading.csv_blocks import read_blocks
from mlefw.reading.csv_text import broken_record, check_delimiter, check_encoding, is_utf8, record_lines, to_utf8
from mlefw.reading.file import DataFile, data_files, opened, origin_of
from mlefw.reading.notation import MISSING_WORDS, NumberFormat
from mlefw.reading.table import FILE_STEP, Table

BLOCK_BYTES = 2**25
"""Bytes that pyarrow parses at a time. A record must fit in: one of fifty thousand columns is about a megabyte."""

INTEGER = r"0|-?[1-9][0-9]{0,17}"
"""Integers that int64 holds and that are written back alike: without leading zeros, up to 18 digits."""

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
"""Endings of the files of a folder that are read."""


class Parsed(NamedTuple):
    """The records of one file.

    Attributes:
        arrow: the records as a table.
        lines: the line of the file at which each record begins; None where every line is a record.
    """

    arrow: pa.Table
    lines: np.ndarray | None

    def numbers(self, first: int) -> np.ndarray:
        """The line at which each record begins, (n,); where every line is a record, they count from `first`."""
        return np.arange(self.arrow.num_rows) + first if self.lines is None else self.lines


@dataclass(kw_only=True)
class Csv(Source):
    """Reads CSV files strictly: every line has equally many fields, and nothing is guessed.

    Messages name rows by their line in the file. Blank cells are missing values; so are NA, NaN, null and N/A
    among numbers.

    Attributes:
        path: file of the rows to split; or a folder, or a pattern such as `part-*.csv`, of files with the same columns.
            These and other paths may be addresses: s3://…, gs://…, or https://… of one file.
        validation_path: file, folder or pattern of the validation rows; by default they are drawn from `path`.
        test_path: file, folder or pattern of the test rows; by default they are drawn from `path`.
        download: folder in which whole copies of remote files are kept for runs to come; by default none are.
        delimiter: character between fields.
        decimal: decimal sign.
        thousands: sign that groups digits, as `,` in 1,000; None for no grouping.
        encoding: encoding of the text, by a name that Python knows.
        header: whether the first line names the columns; else they are named f0, f1, ...
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    download: str | None = None
    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    header: bool = True

    def __post_init__(self) -> None:
        """Check the delimiter and the decimal sign.

        Raises:
            UsageError: one of them is not a single ASCII character, or a sign has two meanings.
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

    def read_blocks(self) -> Iterator[Block]:
        """The rows of `path`, some megabytes of text at a time."""
        files = data_files(self.path, "data.path", SUFFIXES, self.download)
        start = 0
        for k, file in enumerate(files):
            check_encoding(self.encoding)
            with opened(file) as (stream, share):
                for raw, shift in self._raw_blocks(stream, file):
                    parsed = self._parsed(raw, str(file), (), shift)
                    place = Table({}, str(file), 1 + self.header + shift, parsed.lines)
                    numbers = place.row_numbers(np.arange(parsed.arrow.num_rows))
                    table = self._table(parsed.arrow, replace(place, numbers=numbers))
                    kept = np.searchsorted(numbers, table.row_numbers(np.arange(table.num_rows)))
                    yield Block(table, start + kept, (k + share()) / len(files))
                    start += parsed.arrow.num_rows

    def _raw_blocks(self, stream: Any, file: DataFile) -> Iterator[tuple[bytes, int]]:
        try:
            yield from read_blocks(stream, self.encoding, self.header)
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is not {self.encoding} text: {error}") from None

    def _load(self, path: str | None, setting: str) -> Table:
        files = data_files(path, setting, SUFFIXES, self.download)
        parts = [self._parsed(_bytes(file), str(file)) for file in files]
        if len(files) == 1:
            place = Table({}, str(files[0]), 1 + self.header, parts[0].lines)
        else:
            differing = _differing([part.arrow for part in parts], files)
            if differing:
                parts = [self._parsed(_bytes(file), str(file), differing) for file in files]
            lines = [part.numbers(1 + self.header) + k * FILE_STEP for k, part in enumerate(parts)]
            names = tuple(file.name for file in files)
            place = Table({}, origin_of(str(path)), 0, np.concatenate(lines), names)
        first = parts[0].arrow.column_names
        arrow = pa.concat_tables([part.arrow.select(first) for part in parts], promote_options="permissive")
        if arrow.num_rows == 0:
            raise UsageError(f"{place.origin} has 0 data rows\n  expected: a table with at least one row")
        return self._table(arrow, place)

    def _table(self, arrow: pa.Table, place: Table) -> Table:
        if arrow.num_rows == 0:
            return empty_table(self.wanted(arrow.column_names, place.origin), place)
        form = NumberFormat(self.decimal, self.thousands)
        cells = replace(self.cells(arrow.column_names), form=form, on_purpose=False)
        columns = ((name, [self._column(arrow, name)]) for name in self.wanted(arrow.column_names, place.origin))
        return to_table(columns, place, cells)

    def _parsed(self, raw: bytes, origin: str, text: Collection[str] = (), shift: int | None = None) -> "Parsed":
        """Parse a file, or a block of a file with the header put before it.

        Args:
            raw: the content.
            origin: name of the file, for messages.
            text: columns that are read as text.
            shift: for a block, how many lines its first record lies further down than behind a header.
        """
        # Blocks are in UTF-8 already, whatever the file is in.
        encoding = "utf-8" if shift is not None and not is_utf8(self.encoding) else self.encoding
        raw = to_utf8(raw, origin, encoding, self.delimiter, shift or 0)
        check_delimiter(raw, origin, self.delimiter)
        arrow = self._parse(raw, origin, text, shift or 0)
        self._check_header(arrow.column_names, origin)
        lines = record_lines(raw, self.header, arrow.num_rows)
        return Parsed(arrow, None if lines is None else lines + (shift or 0))

    def _parse(self, raw: bytes, origin: str, text: Collection[str], shift: int) -> pa.Table:
        quoted = b'"' in raw
        # pyarrow closes a quote that is open at the end of the file, and so takes all rows behind it for one cell.
        broken = broken_record(raw, self.delimiter, shift) if raw.count(b'"') % 2 else None
        types = dict.fromkeys([*text, *(self.categorical or ()), *([self.id] if self.id else [])], pa.string())
        try:
            if broken is None:
                arrow = self._read(raw, quoted, types)
                if b"0x" not in raw.lower():
                    return arrow
                # pyarrow reads 0x1F as 31. As text, such cells are refused with a message later on.
                numeric = [field.name for field in arrow.schema if pa.types.is_integer(field.type)]
                return self._read(raw, quoted, types | dict.fromkeys(numeric, pa.string()))
        except pa.ArrowInvalid as error:
            broken = broken_record(raw, self.delimiter, shift) or str(error).splitlines()[0]
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

    def _column(self, arrow: pa.Table, name: str) -> pa.ChunkedArray:
        column = arrow.column(name)
        if not pa.types.is_string(column.type):
            return column
        if name == self.id and pc.all(pc.match_substring_regex(column, f"^({INTEGER})$")).as_py():
            return column.cast(pa.int64())
        return pc.if_else(is_blank(column), pa.scalar(None, pa.string()), column)


def _bytes(file: DataFile) -> bytes:
    with opened(file) as (stream, _):
        return stream.read()


def _differing(tables: Sequence[pa.Table], files: Sequence[DataFile]) -> list[str]:
    """The columns whose type differs between files, such as numbers in one and text in another.

    They are to be read as text, so that a number that is misspelt in one file is reported with its line.

    Raises:
        UsageError: the files do not have the same columns.
    """
    first = tables[0].column_names
    for table, file in zip(tables, files, strict=True):
        if set(table.column_names) != set(first):
            odd = sorted(set(table.column_names) ^ set(first))
            raise UsageError(
                f"{file} and {files[0].name} differ in columns: {', '.join(map(repr, odd[:8]))}"
                "\n  expected: the same columns in every file"
            )

    def kind(name: str, table: pa.Table) -> str:
        type_ = table.field(name).type
        return "number" if pa.types.is_integer(type_) or pa.types.is_floating(type_) else str(type_)

    kinds = {name: {kind(name, table) for table in tables} - {"null"} for name in first}
    return [name for name, found in kinds.items() if len(found) > 1]
