"""Documents of symbols (characters, bytes or ids), read in blocks from files or from memory."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.file import regular_file, regular_files

TokenKind = Literal["chars", "bytes", "ids"]
"""What a token is: a character (Unicode code point), a byte, or an integer of a vocabulary."""

IdType = Literal["uint8", "uint16", "uint32", "int32", "int64"]
"""Type of the ids in a file, little-endian."""

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Document:
    """One text, of which windows never cross the ends.

    Attributes:
        name: its file, or a word for a text in memory: for messages.
        blocks: gives the symbols in consecutive blocks, non-negative integers (n,), each with the position of its first
            symbol: in bytes of the file for characters and bytes, in ids for ids.
        whole: all symbols, where they lie in memory or in a mapped file in this form already.
    """

    name: str
    blocks: Callable[[], Iterator[tuple[int, np.ndarray]]]
    whole: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of symbols; characters are counted by reading them all."""
        return sum(len(symbols) for _, symbols in self.blocks()) if self.whole is None else len(self.whole)


def read_documents(
    path: str | None, kind: TokenKind, dtype: IdType = "uint16", setting: str = "data.path"
) -> list[Document]:
    """The documents of a file, of all files of a folder, or of the files that match a pattern, sorted by name.

    Raises:
        UsageError: no file, an empty file, a byte order mark of another encoding than UTF-8, or ids in a file that does
            not hold a whole number of them.
    """
    found = []
    for file in _files(path, setting):
        size = file.stat().st_size
        if size == 0:
            raise UsageError(
                f"{file} is empty (0 bytes)\n  expected: {'token ids' if kind == 'ids' else 'text'} in {setting}"
            )
        if kind == "ids":
            found.append(_ids_of(file, size, dtype))
        else:
            found.append(Document(str(file), _reader(file, kind)))
    return found


def as_documents(texts: str | bytes | np.ndarray | Sequence[str | bytes | np.ndarray]) -> list[Document]:
    """The documents of a text, of bytes or of a vector of ids in memory, or of a sequence of these.

    Raises:
        UsageError: a text is empty, holds half of a surrogate pair, or is neither str, bytes nor whole numbers (n,).
    """
    single = isinstance(texts, str | bytes | np.ndarray)
    each: Sequence[str | bytes | np.ndarray] = [texts] if single else texts  # type: ignore[list-item, assignment]
    return [_in_memory(text, "the text" if single else f"text {number}") for number, text in enumerate(each)]


def _in_memory(text: str | bytes | np.ndarray, name: str) -> Document:
    if isinstance(text, str):
        try:
            text = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{name} holds half of a surrogate pair at character {error.start}\n  expected: Unicode text"
            ) from None
        raw = text
        document = Document(name, lambda: _characters(lambda start: raw[start : start + _BLOCK_BYTES], name))
    elif isinstance(text, bytes):
        whole = np.frombuffer(text, np.uint8)
        document = Document(name, lambda: _slices(whole), whole)
    else:
        ids = np.asarray(text)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise UsageError(
                f"{name} is an array of {ids.dtype} and shape {ids.shape}\n  expected: whole numbers, shape (n,)"
            )
        return Document(name, lambda: _slices(ids), ids)
    if not text:
        raise UsageError(f"{name} is empty\n  expected: characters")
    return document


def _files(path: str | None, setting: str) -> list[Path]:
    if not path:
        raise UsageError(
            f"{setting} is not set\n  expected: a text file, a folder or a pattern, e.g. {setting}=book.txt"
        )
    if Path(path).expanduser().is_dir():
        folder = Path(path).expanduser()
        found = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] not in "._")
        if not found:
            raise UsageError(
                f"{folder} is a directory without files ({setting})"
                "\n  expected: text files in it, or a pattern for those of its sub-folders, such as folder/*/*.txt"
            )
        return [regular_file(str(file), setting) for file in found]
    return regular_files(path, setting, ())


def _ids_of(file: Path, size: int, dtype: IdType) -> Document:
    width = np.dtype(dtype).itemsize
    if size % width:
        raise UsageError(
            f"{file} has {size} bytes, which is no whole number of {dtype} ids of {width} bytes"
            "\n  expected: ids one behind the other, without a header, of the type that data.dtype names"
        )
    # Copy on write: torch accepts no read-only array, and nothing is written.
    ids = np.memmap(file, np.dtype(dtype).newbyteorder("<"), "c").view(np.ndarray)
    return Document(str(file), lambda: _slices(ids), ids)


def _slices(symbols: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(symbols), _BLOCK_BYTES):
        yield start, symbols[start : start + _BLOCK_BYTES]


def _reader(file: Path, kind: TokenKind) -> Callable[[], Iterator[tuple[int, np.ndarray]]]:
    def pieces() -> Iterator[tuple[int, np.ndarray]]:
        try:
            with file.open("rb") as stream:
                if kind == "chars":
                    yield from _characters(lambda start: stream.read(_BLOCK_BYTES), str(file))
                else:
                    start = 0
                    while piece := stream.read(_BLOCK_BYTES):
                        yield start, np.frombuffer(piece, np.uint8)
                        start += len(piece)
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error}") from None

    return pieces


def _characters(read: Callable[[int], bytes], name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The code points of UTF-8 text; a byte order mark at its beginning is left out.

    Args:
        read: gives the bytes from a position on, one block; positions are consecutive.
        name: of the text, for messages.
    """
    start, rest = 0, b""
    while True:
        piece = read(start + len(rest))
        raw = rest + piece
        if start == 0 and raw.startswith(codecs.BOM_UTF8):
            start, raw = len(codecs.BOM_UTF8), raw[len(codecs.BOM_UTF8) :]
        if raw.isascii():
            text, used = None, len(raw)
        else:
            try:
                text, used = codecs.utf_8_decode(raw, "strict", not piece)
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"{name} is not UTF-8 text: byte 0x{raw[error.start]:02X} at byte offset {start + error.start}"
                    "\n  expected: UTF-8; data.tokens=bytes takes any file"
                ) from None
        if used:
            coded = raw[:used] if text is None else text.encode("utf-32-le")
            yield start, np.frombuffer(coded, np.uint8 if text is None else np.uint32)
        if not piece:
            return
        start, rest = start + used, raw[used:]


def utf8_lengths(code_points: np.ndarray) -> np.ndarray:
    """Number of bytes of each code point in UTF-8, (n,) int64."""
    return 1 + np.searchsorted([0x80, 0x800, 0x10000], code_points, side="right")
