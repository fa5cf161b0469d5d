"""The alphabet of a text is learnt, stored and read back, and texts are coded by it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mlefw.errors import UsageError
from mlefw.reading.documents import as_documents, read_documents
from mlefw.schema.tokens import TokenSchema

TEXT = "der Wald über’m Tal\n🜛"


def test_characters_are_coded_by_their_place_in_the_alphabet() -> None:
    documents = as_documents([TEXT, "über"])
    schema = TokenSchema.learn(documents, "chars", 4)
    assert "".join(schema.labels) == "".join(sorted(set(TEXT)))
    stream = schema.code(documents)
    assert [schema.labels[k] for k in stream.tokens] == list(TEXT + "über")
    assert stream.documents.tolist() == [[0, len(TEXT)], [len(TEXT), len(TEXT) + 4]]
    assert stream.tokens.dtype == np.uint8
    assert stream.hidden is None
    assert schema.decode(stream.tokens) == TEXT + "über"
    assert schema.token_bytes is not None
    assert schema.token_bytes[stream.tokens].sum() == len((TEXT + "über").encode())


def test_bytes_are_coded_by_their_place_in_the_alphabet() -> None:
    raw = TEXT.encode() + b"\xff\x00"
    schema = TokenSchema.learn(as_documents(raw), "bytes", 4)
    assert schema.num_tokens == len(set(raw))
    assert schema.labels[0] == "0x00"
    assert schema.decode(schema.code(as_documents(raw)).tokens) == raw
    assert schema.token_bytes is not None
    assert (schema.token_bytes == 1).all()


@pytest.mark.parametrize(("count", "dtype"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")])
def test_a_stream_has_the_smallest_type(count: int, dtype: str) -> None:
    points = [point for point in range(1, 70000) if not 0xD800 <= point < 0xE000][:count]
    text = "".join(map(chr, points))
    schema = TokenSchema.learn(as_documents(text), "chars", 4)
    stream = schema.code(as_documents(text))
    assert stream.tokens.dtype == np.dtype(dtype)
    assert stream.tokens.tolist() == list(range(count))
    assert schema.decode(stream.tokens[-3:]) == text[-3:]


def test_ids_of_one_file_are_mapped(tmp_path: Path) -> None:
    np.arange(300, dtype=np.uint16).tofile(tmp_path / "a.bin")
    documents = read_documents(str(tmp_path / "a.bin"), "ids", "uint16")
    stream = TokenSchema.learn(documents, "ids", 8, vocabulary=300).code(documents)
    assert isinstance(stream.tokens.base, np.memmap)
    assert stream.rows(stream.documents, 8).take(torch.tensor([1])).y.int().tolist() == [list(range(9, 17))]
    np.arange(300, dtype=np.uint32).tofile(tmp_path / "b.bin")
    both = [*documents, *read_documents(str(tmp_path / "b.bin"), "ids", "uint32")]
    joined = TokenSchema.learn(both, "ids", 8, vocabulary=300).code(both)
    assert joined.tokens.tolist() == [*range(300), *range(300)]
    assert joined.tokens.dtype == np.uint16
    vector = np.arange(300)
    assert TokenSchema("ids", 8, (), 300).code(as_documents(vector)).tokens.tolist() == vector.tolist()


@pytest.mark.parametrize(
    "schema",
    [
        TokenSchema.learn(as_documents(TEXT), "chars", 4),
        TokenSchema("ids", 8, (), 300, 3.7),
        TokenSchema("ids", 1, (), 2),
    ],
)
def test_a_schema_is_stored_as_plain_values(schema: TokenSchema) -> None:
    assert TokenSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_unknown_characters_are_refused_with_byte_offsets_or_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.reading.documents._BLOCK_BYTES", 8)
    schema = TokenSchema.learn(as_documents(TEXT), "chars", 4)
    new = as_documents(["Wald", "über é Tal ζ"])
    at = ["über é Tal ζ".encode().index(one.encode()) for one in "éζ"]
    with pytest.raises(UsageError, match=f"text 1 holds chars .*: 'é' at byte offset {at[0]}\n.*data.unseen=ignore"):
        schema.code(new)
    with pytest.raises(UsageError, match=f"'ζ' at byte offset {at[1]}\n"):
        schema.code(as_documents("über e Tal ζ".replace("e ", "er ")))
    stream = schema.code(new, unseen="ignore")
    assert stream.hidden is not None
    assert np.flatnonzero(stream.hidden).tolist() == [9, 15]
    assert stream.num_unknown == 2
    assert stream.tokens[[9, 15]].tolist() == [0, 0]
    assert stream.rows(stream.documents, 4).population == 3 + 11 - 2


def test_texts_without_anything_to_predict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one distinct token, 'a'"):
        TokenSchema.learn(as_documents("aaaa"), "chars", 4)
    with pytest.raises(UsageError, match="only one distinct token, 0x61"):
        TokenSchema.learn(as_documents(b"aaaa"), "bytes", 4)
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(UsageError, match="no token"):
        TokenSchema.learn(read_documents(str(tmp_path / "mark.txt"), "chars"), "chars", 4)
    with pytest.raises(UsageError, match=r"data\.length=0"):
        TokenSchema.learn(as_documents("ab"), "chars", 0)


def test_ids_need_a_vocabulary_that_holds_them() -> None:
    ids = as_documents(np.array([0, 5, 9, 10, -1]))
    for vocabulary in (None, 1, 2**31):
        with pytest.raises(UsageError, match=r"data\.vocabulary="):
            TokenSchema.learn(ids, "ids", 4, vocabulary)
    with pytest.raises(UsageError, match="outside 0 … 9: 10 at position 3, -1 at position 4"):
        TokenSchema.learn(ids, "ids", 4, 10).code(ids)
