"""Reading of a CSV file in blocks of whole records, for files larger than the memory."""

import codecs
from collections.abc import Iterator
from typing import Any, NamedTuple

BLOCK_BYTES = 2**23
"""Usual size of a block."""


class Block(NamedTuple):
    """Whole records after the header line of the file; line numbers in the file are `shift` higher than in `raw`."""

    raw: bytes
    shift: int


def read_blocks(stream: Any, encoding: str, header: bool, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """The blocks of a binary stream, recoded to UTF-8.

    A block has about `size` bytes, or more if a record is longer.
    """
    top, lines = b"", 0
    for raw in _whole_records(_in_utf8(stream, encoding), size):
        yield Block(top + raw, lines - top.count(b"\n"))
        if header and not lines:
            top = _first_record(raw)
        lines += raw.count(b"\n")


def _in_utf8(stream: Any, encoding: str) -> Any:
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii"):
        return stream
    utf8 = codecs.lookup("utf-8")
    other = codecs.lookup(encoding)
    return codecs.StreamRecoder(stream, utf8.encode, utf8.decode, other.streamreader, other.streamwriter)


def _whole_records(stream: Any, size: int) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(size):
        rest += chunk
        end = _last_end(rest)
        if rest[:end].strip():
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _last_end(raw: bytes) -> int:
    """Position after the last whole record: after the last line end with an even number of quotes before it."""
    end = raw.rfind(b"\n")
    quotes = raw.count(b'"', 0, max(end, 0))
    while end >= 0 and quotes % 2:
        before = raw.rfind(b"\n", 0, end)
        quotes -= raw.count(b'"', max(before, 0), end)
        end = before
    return end + 1


def _first_record(raw: bytes) -> bytes:
    """The first nonblank record, with its line end and without a byte order mark."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    start = len(raw) - len(raw.lstrip(b"\r\n"))
    end = raw.find(b"\n", start)
    while end >= 0 and raw.count(b'"', start, end) % 2:
        end = raw.find(b"\n", end + 1)
    return raw[start : end + 1] if end >= 0 else raw[start:] + b"\n"
