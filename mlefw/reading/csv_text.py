"""Checks of the bytes of a CSV file before they are parsed: encoding, stray bytes, delimiter and line numbers."""

import codecs
import csv
import io

import numpy as np

from mlefw.errors import UsageError

BYTE_ORDER_MARKS = {  # the longer mark first: UTF-32 begins like UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def to_utf8(raw: bytes, origin: str, encoding: str, delimiter: str, shift: int = 0) -> bytes:
    """The text of a file in UTF-8 without a byte order mark; line numbers in messages are raised by `shift`.

    Raises:
        UsageError: bytes that are invalid in `encoding`, a NUL byte, or only blank lines.
    """
    check_encoding(encoding)
    utf8 = is_utf8(encoding)
    mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), None)
    if mark and utf8:
        raise UsageError(f"{origin} is {mark.upper()} text, not UTF-8\n  set data.encoding={mark}")
    try:
        if not utf8:
            raw = raw.decode(encoding).encode()
        elif not raw.isascii():
            raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(_undecodable(raw, origin, error, encoding, delimiter, shift)) from None
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if (nul := raw.find(b"\0")) >= 0:
        raise UsageError(f"{origin} has a NUL byte in line {line_at(raw, nul) + shift}\n  expected: text; remove it")
    if not raw.strip():
        raise UsageError(f"{origin} holds only blank lines\n  expected: a header line and data rows")
    return raw


def check_encoding(encoding: str) -> None:
    """Check that Python knows an encoding.

    Raises:
        UsageError: the encoding is unknown.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # some codecs are not of text
    except (LookupError, ValueError):
        raise UsageError(f"data.encoding={encoding} is not known\n  examples: utf-8, latin-1, cp1252, utf-16") from None


def is_utf8(encoding: str) -> bool:
    """Whether text in the encoding is UTF-8 already."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def line_at(raw: bytes, position: int) -> int:
    """Number of the line, counted from 1, that contains the byte at `position`."""
    return raw.count(b"\n", 0, position) + 1


def check_delimiter(raw: bytes, origin: str, delimiter: str) -> None:
    """Check that the first line contains the delimiter, or no other common one.

    Raises:
        UsageError: the file seems to have another delimiter, which the message names.
    """
    first = raw.lstrip().split(b"\n", 1)[0].decode()
    likely = max(";\t|,", key=first.count)
    if delimiter not in first and likely in first:
        shown = likely.replace("\t", "\\t")
        raise UsageError(f"{origin} has one column with data.delimiter='{delimiter}'\n  set data.delimiter='{shown}'")


def broken_record(raw: bytes, delimiter: str, shift: int = 0) -> str | None:
    """What is wrong with the first record whose number of fields differs; None if nothing is.

    It parses the text in Python, which is slow, and is called only after another parser failed.
    """
    reader = csv.reader(io.StringIO(raw.decode(), newline=""), delimiter=delimiter, strict=True)
    width, start = 0, 1
    try:
        for fields in reader:
            if fields and width and len(fields) != width:
                shown = delimiter.join(fields)[:60]
                return f"line {reader.line_num + shift} has {len(fields)} fields, the first line {width}: {shown!r}"
            width = width or len(fields)
            start = reader.line_num + 1
    except csv.Error as error:
        return f"line {start + shift} cannot be read: {error}"
    return None


def record_lines(raw: bytes, header: bool, num_rows: int) -> np.ndarray | None:
    """The line number at which each data row begins, (num_rows,); None if rows are on consecutive lines."""
    if raw.rstrip().count(b"\n") + 1 == num_rows + header:
        return None
    data = np.frombuffer(raw, dtype=np.uint8)
    newlines = np.flatnonzero(data == ord("\n"))
    quotes = np.flatnonzero(data == ord('"'))
    ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]  # an odd count: the newline is inside quotes
    ends = np.append(ends, len(raw))
    starts = np.concatenate([[0], ends[:-1] + 1])
    filled = (ends > starts) & ~((ends - starts == 1) & (data[np.minimum(starts, len(raw) - 1)] == ord("\r")))
    lines = np.searchsorted(newlines, starts[filled]) + 1
    lines = lines[1:] if header else lines
    return lines if len(lines) == num_rows else None


def _undecodable(raw: bytes, origin: str, error: UnicodeDecodeError, encoding: str, delimiter: str, shift: int) -> str:
    line_start = raw.rfind(b"\n", 0, error.start) + 1
    field = raw[line_start : error.start].count(delimiter.encode())
    names = raw.split(b"\n", 1)[0].strip().decode(errors="replace").split(delimiter)
    name = f" ({names[field]!r})" if field < len(names) else ""
    place = f"line {line_at(raw, error.start) + shift}, column {field + 1}{name}, byte 0x{raw[error.start]:02X}"
    return f"{origin} is not {encoding} text: {place}\n  name its encoding, e.g. data.encoding=latin-1"
