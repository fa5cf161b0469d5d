"""Documents are read as they are written, whatever block a character is in; bad files are named with the place."""

from pathlib import Path

import numpy as np
import pytest
from token_texts import spans_of

from mlefw.errors import UsageError
from mlefw.reading.documents import Document, as_documents, read_documents, utf8_lengths
from mlefw.reading.token_split import split_tokens

TEXT = "naïve Σ 🜛 — “quoted”\r\n\tend" * 7


def symbols(document: Document) -> list[int]:
    return [int(one) for _, block in document.blocks() for one in block]


@pytest.mark.parametrize("block", [4, 5, 7, 13, 2**20])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_characters_are_code_points_with_their_byte_offsets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, mark: bytes
) -> None:
    monkeypatch.setattr("mlefw.reading.documents._BLOCK_BYTES", block)
    (tmp_path / "a.txt").write_bytes(mark + TEXT.encode())
    (document,) = read_documents(str(tmp_path / "a.txt"), "chars")
    assert symbols(document) == [ord(one) for one in TEXT]
    raw, read = mark + TEXT.encode(), 0
    for offset, points in document.blocks():
        assert raw[:offset].decode("utf-8-sig") == TEXT[:read]
        read += len(points)
    (memory,) = as_documents(TEXT)
    assert symbols(memory) == symbols(document)


def test_bytes_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.reading.documents._BLOCK_BYTES", 10)
    raw = bytes(range(256))
    (tmp_path / "a").write_bytes(raw)
    for document in (*read_documents(str(tmp_path / "a"), "bytes"), *as_documents(raw)):
        assert bytes(symbols(document)) == raw
        assert [offset for offset, _ in document.blocks()] == list(range(0, 256, 10))


def test_a_folder_and_a_pattern_give_documents_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", ".hidden", "_partial"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder").mkdir()
    assert [Path(one.name).name for one in read_documents(str(tmp_path), "chars")] == ["a.md", "b.txt"]
    assert [Path(one.name).name for one in read_documents(str(tmp_path / "*.txt"), "chars")] == ["b.txt"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_ids_lie_where_they_are(tmp_path: Path, dtype: str) -> None:
    ids = np.arange(200).astype(dtype)
    ids.tofile(tmp_path / "ids.bin")
    (document,) = read_documents(str(tmp_path / "ids.bin"), "ids", dtype)  # type: ignore[arg-type]
    assert symbols(document) == ids.tolist()
    assert document.whole is not None
    assert isinstance(document.whole.base, np.memmap)


def test_lengths_in_utf8() -> None:
    points = [0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF]
    assert utf8_lengths(np.array(points)).tolist() == [len(chr(one).encode()) for one in points]


@pytest.mark.parametrize("block", [3, 2**20])
@pytest.mark.parametrize(
    ("raw", "offset", "byte"),
    [(b"abc\xffdef", 3, "0xFF"), ("é".encode() * 3 + b"\xc3", 6, "0xC3"), ("höhe".encode("latin-1"), 1, "0xF6")],
)
def test_text_that_is_not_utf8_is_refused_with_the_byte_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, raw: bytes, offset: int, byte: str
) -> None:
    monkeypatch.setattr("mlefw.reading.documents._BLOCK_BYTES", block)
    (tmp_path / "a.txt").write_bytes(raw)
    (document,) = read_documents(str(tmp_path / "a.txt"), "chars")
    with pytest.raises(UsageError, match=f"byte {byte} at byte offset {offset}\n.*data.tokens=bytes"):
        symbols(document)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"empty\.txt is empty \(0 bytes\)"):
        read_documents(str(tmp_path / "empty.txt"), "chars")
    with pytest.raises(UsageError, match="3 bytes, which is no whole number of uint16 ids of 2 bytes"):
        read_documents(str(tmp_path / "odd.bin"), "ids", "uint16")
    with pytest.raises(UsageError, match="directory without files"):
        read_documents(str(tmp_path / "none"), "chars")
    with pytest.raises(UsageError, match=r"missing\.txt does not exist"):
        read_documents(str(tmp_path / "missing.txt"), "chars")
    with pytest.raises(UsageError, match=r"data\.path is not set"):
        read_documents(None, "chars")


def test_texts_in_memory_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="the text is empty"):
        as_documents("")
    with pytest.raises(UsageError, match="text 1 is empty"):
        as_documents(["a", b""])
    with pytest.raises(UsageError, match="half of a surrogate pair at character 2"):
        as_documents("ab\ud800")
    with pytest.raises(UsageError, match=r"array of float64 and shape \(3,\)"):
        as_documents(np.zeros(3))


def test_the_tail_is_held_out() -> None:
    found = split_tokens(spans_of([892_316 + 223_078]), "tail", 0.1, 0.1, 0, 64)
    assert {name: part.tolist() for name, part in found.items()} == {
        "train": [[0, 892_316]],
        "validation": [[892_316, 1_003_855]],
        "test": [[1_003_855, 1_115_394]],
    }
    assert list(split_tokens(spans_of([500]), "tail", 0.0, 0.2, 0, 64)) == ["train", "test"]


def test_the_tail_cuts_documents() -> None:
    spans = spans_of([50, 20, 30])
    found = split_tokens(spans, "tail", 0.25, 0.2, 0, 9)
    assert found["train"].tolist() == [[0, 50], [50, 55]]
    assert found["validation"].tolist() == [[55, 70], [70, 80]]
    assert found["test"].tolist() == [[80, 100]]


def test_documents_are_shared_out_whole() -> None:
    spans = spans_of(list(range(10, 30)))
    found = split_tokens(spans, "documents", 0.1, 0.2, 5, 4)
    assert {name: len(part) for name, part in found.items()} == {"train": 14, "validation": 2, "test": 4}
    assert sorted(map(tuple, np.concatenate(list(found.values())))) == sorted(map(tuple, spans))
    assert found["test"].tolist() == sorted(found["test"].tolist())
    again, other = (split_tokens(spans, "documents", 0.1, 0.2, seed, 4) for seed in (5, 6))
    assert again["test"].tolist() == found["test"].tolist() != other["test"].tolist()


def test_splits_that_are_too_short_are_refused() -> None:
    with pytest.raises(UsageError, match="the test split has 64 tokens, and one window needs 65"):
        split_tokens(spans_of([640]), "tail", 0.1, 0.1, 0, 64)
    assert len(split_tokens(spans_of([650]), "tail", 0.1, 0.1, 0, 64)) == 3
    with pytest.raises(UsageError, match="the train split has 0 tokens"):
        split_tokens(spans_of([640]), "tail", 0.5, 0.5, 0, 64)
    with pytest.raises(UsageError, match="documents of one token only"):
        split_tokens(spans_of([1] * 100), "tail", 0.1, 0.1, 0, 4)
    with pytest.raises(UsageError, match="2 documents for test and validation and train"):
        split_tokens(spans_of([100, 100]), "documents", 0.1, 0.1, 0, 4)
