"""Windows score every token but the first of each document once, and rows gather what windows say."""

import copy
import pickle

import numpy as np
import pytest
import torch
from token_texts import rows_of, spans_of

from mlefw.rows.fingerprint import fingerprint
from mlefw.rows.rows import Rows
from mlefw.rows.scored_tokens import scored_counts, scored_tokens
from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import Windows, shifted_windows, windows

SIZES = [[40], [41], [9], [8], [2], [30, 5, 2, 1, 17, 9, 8, 3], [1, 1, 2, 100]]


def scored_positions(found: Windows) -> list[int]:
    """The position in the stream of every scored token, by a plain loop."""
    return [
        int(start) + t + 1
        for start, skip, stop in zip(found.start, found.skip, found.stop, strict=True)
        for t in range(int(skip), int(stop))
    ]


def all_but_the_first(spans: np.ndarray) -> list[int]:
    return [position for start, stop in spans for position in range(start + 1, stop)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("stride", "phase"), [(None, 0), (8, 0), (4, 0), (3, 0), (1, 0), (None, 1), (None, 5), (3, 7)])
def test_every_token_but_the_first_of_a_document_is_scored_once(sizes: list[int], stride: int, phase: int) -> None:
    spans = spans_of(sizes, start=3)
    found = windows(torch.from_numpy(spans), 8, stride, phase)
    assert scored_positions(found) == all_but_the_first(spans)
    assert found.num_scored == len(all_but_the_first(spans))
    for start, skip, stop, origin in zip(*found, strict=True):
        span = next((a, b) for a, b in spans if a == origin)
        assert span[0] <= start
        assert 0 <= skip < stop <= 8
        assert start + stop < span[1]


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_a_stride_gives_tokens_at_least_so_much_context(stride: int) -> None:
    found = windows(torch.tensor([[0, 101]]), 8, stride)
    assert int(found.skip[1:].min()) >= 8 - stride
    assert int((found.stop - found.skip).max()) == 8
    assert bool((found.stop - found.skip)[1:].le(stride).all())


def test_the_windows_of_the_design() -> None:
    found = windows(torch.tensor([[0, 892_316], [892_316, 1_003_855], [1_003_855, 1_115_394]]), 64)
    assert torch.unique(found.origin, return_counts=True)[1].tolist() == [13_943, 1_743, 1_743]
    assert int(found.start[13_942]) == 892_316 - 65


@pytest.mark.parametrize("sizes", SIZES)
def test_the_number_of_windows_is_the_same_in_each_phase(sizes: list[int]) -> None:
    spans = spans_of(sizes)
    for phase in range(8):
        found = shifted_windows(torch.from_numpy(spans), 8, phase)
        assert len(found.start) == len(shifted_windows(torch.from_numpy(spans), 8, 0).start)
        assert scored_positions(found) == all_but_the_first(spans)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_rows_are_gathered_as_windows_say(dtype: type) -> None:
    stream = np.arange(100, 175).astype(dtype)
    rows = rows_of(stream, spans_of([30, 5, 2, 1, 17, 9, 8, 3]), 8)
    taken = rows.take(torch.arange(rows.num_rows))
    assert taken.x.dtype == taken.y.dtype == torch.from_numpy(stream).dtype
    assert taken.weight.dtype == taken.offset.dtype == torch.float64
    for i, (start, skip, stop, _) in enumerate(zip(*rows.windows, strict=True)):
        # Behind the end of the stream its last token is repeated.
        tokens = [int(stream[min(int(start) + t, 74)]) for t in range(9)]
        assert taken.x[i].int().tolist() == tokens[:-1]
        assert taken.y[i].int().tolist() == tokens[1:]
        assert taken.weight[i].tolist() == [float(skip <= t < stop) for t in range(8)]
    assert not taken.offset.any()
    assert int(rows.windows.start.max()) + 9 > len(stream)
    assert rows.population == float(taken.weight.sum()) == 75 - 8


def test_the_ways_of_taking_rows_agree() -> None:
    rows = rows_of(np.arange(75, dtype=np.uint8), spans_of([30, 45]), 8)
    index = torch.tensor([[3, 0], [9, 1]])
    taken, whole = rows.take(index), rows.take(torch.arange(rows.num_rows))
    assert taken.x.shape == taken.y.shape == taken.weight.shape == taken.offset.shape == (2, 2, 8)
    for column, all_of_it in zip(taken, whole, strict=True):
        assert torch.equal(column, all_of_it[index])
    part = rows.take(slice(2, 7))
    assert isinstance(part, TokenRows)
    assert torch.equal(part.x, whole.x[2:7])
    assert torch.equal(rows.take(torch.arange(rows.num_rows) > 5).y, whole.y[6:])
    blocks = list(rows.blocks(4))
    assert [block.num_rows for block in blocks] == [4, 4, 2]
    for name in Rows._fields:
        assert torch.equal(torch.cat([getattr(block, name) for block in blocks]), getattr(whole, name))
        assert torch.equal(getattr(rows, name), getattr(whole, name))


def test_constant_columns_are_one_number() -> None:
    rows = rows_of(np.zeros(81, dtype=np.uint8), spans_of([81]), 8)
    taken = rows.take(torch.arange(10))
    assert taken.weight.untyped_storage().nbytes() == taken.offset.untyped_storage().nbytes() == 8
    assert bool((taken.weight == 1).all())
    assert rows.num_bytes == 81 + 3 * 8 * 10


def test_hidden_tokens_are_not_scored() -> None:
    hidden = torch.zeros(75, dtype=torch.bool)
    hidden[[0, 4, 30, 74]] = True
    plain = rows_of(np.arange(75, dtype=np.uint8), spans_of([30, 45]), 8)
    rows = TokenRows(plain.stream, plain.windows, 8, hidden)
    taken = rows.take(torch.arange(rows.num_rows))
    expected = plain.weight.clone()
    expected[(taken.y == 4) | (taken.y == 74)] = 0
    assert torch.equal(taken.weight, expected)
    assert rows.population == 75 - 2 - 2
    assert sum(len(position) for position, _ in scored_tokens(rows)) == 75 - 2 - 2
    assert scored_counts(rows, 75)[[0, 3, 4, 5, 30, 74]].tolist() == [0, 1, 0, 1, 0, 0]


def test_scored_tokens_are_those_of_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.rows.scored_tokens._BLOCK", 7)
    spans = spans_of([30, 5, 2, 1, 17, 9, 8, 3])
    rows = rows_of(np.zeros(75, dtype=np.uint8), spans, 8)
    for some in (rows, rows.take(slice(2, 9)), rows.take(slice(0, 0))):
        assert isinstance(some, TokenRows)
        blocks = list(scored_tokens(some))
        position = np.concatenate([block[0] for block in blocks]) if blocks else np.zeros(0, dtype=int)
        assert position.tolist() == scored_positions(some.windows)
        depth = [int(p - spans[spans[:, 0] < p, 0].max()) for p in position]
        assert np.concatenate([block[1] for block in blocks] or [position]).tolist() == depth
        assert all(len(block[0]) <= 7 for block in blocks)


def test_the_fingerprint_is_that_of_stream_and_windows() -> None:
    stream, spans = np.arange(75, dtype=np.uint8), spans_of([30, 45])
    one = fingerprint(rows_of(stream, spans, 8))
    assert one == fingerprint(rows_of(stream.copy(), spans.copy(), 8))
    changed = stream.copy()
    changed[74] += 1
    others = [rows_of(changed, spans, 8), rows_of(stream, spans_of([31, 44]), 8), rows_of(stream, spans, 8, 4)]
    hidden = TokenRows(
        torch.from_numpy(stream), rows_of(stream, spans, 8).windows, 8, torch.zeros(75, dtype=torch.bool)
    )
    assert len({one, *map(fingerprint, [*others, hidden])}) == 5


def test_columns_cannot_be_replaced() -> None:
    rows = rows_of(np.zeros(20, dtype=np.uint8), spans_of([20]), 8)
    with pytest.raises(TypeError, match="take rows first"):
        rows._replace(weight=torch.ones(3, 8))


def test_rows_are_copied_and_sent_to_other_processes() -> None:
    rows = rows_of(np.arange(75, dtype=np.uint8), spans_of([30, 45]), 8, 4)
    for again in (copy.deepcopy(rows), pickle.loads(pickle.dumps(rows)), rows.to("cpu")):
        assert isinstance(again, TokenRows)
        assert fingerprint(again) == fingerprint(rows)
