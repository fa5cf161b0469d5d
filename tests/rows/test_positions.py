"""Rows of several observations: shapes, masks, memory, and the sums over them, by numpy and by cutting out by hand."""

import math

import numpy as np
import pytest
import torch

from mlefw.batch.full import FullBatch
from mlefw.batch.growing import GrowingBatch
from mlefw.batch.mini import MiniBatch
from mlefw.rows.batch import gather_batches
from mlefw.rows.rows import Rows, constant, observation_rows, weighted_sum
from mlefw.training.datamodule import RowsModule

GENERATOR = np.random.default_rng(0)
WEIGHT = torch.from_numpy(GENERATOR.integers(0, 3, (11, 4, 2)).astype(float))
ROWS = Rows(
    torch.from_numpy(GENERATOR.integers(0, 255, (11, 3, 5)).astype(np.uint8)),
    torch.from_numpy(GENERATOR.normal(size=(11, 4, 2)).astype(np.float32)),
    WEIGHT,
    constant(0.0, (11, 4, 2)),
)


def test_take_keeps_types_and_indexes_the_first_dimension_alone() -> None:
    for index in (torch.tensor([3, 3, 9]), slice(2, 7), WEIGHT.flatten(1).sum(1) > 8):
        got = ROWS.take(index)
        for column, whole in zip(got, ROWS, strict=True):
            assert torch.equal(column, whole[index]) and column.dtype == whole.dtype
    nested = ROWS.take(torch.tensor([[1, 2], [0, 10]]))
    assert nested.weight.shape == (2, 2, 4, 2) and torch.equal(nested.x[1, 1], ROWS.x[10])


def test_constant_columns_and_views_take_no_memory_of_their_own() -> None:
    assert ROWS.num_bytes == 11 * 15 + 11 * 8 * 4 + 11 * 8 * 8 + 8
    stream = torch.arange(1000, dtype=torch.uint8)
    windows = Rows(stream[:-1].view(-1, 9), stream[1:].view(-1, 9), constant(1.0, (111, 9)), constant(0.0, (111, 9)))
    assert windows.num_bytes == 1000 + 16
    assert torch.equal(windows.take(torch.tensor([5, 0])).weight, torch.ones(2, 9).double())
    moved = windows.to("meta")
    assert moved.weight.shape == (111, 9) and not any(moved.weight.stride())


@pytest.mark.parametrize("regime", [MiniBatch(3), GrowingBatch(2, 2.0, 1), FullBatch()], ids=lambda r: type(r).__name__)
def test_an_epoch_has_every_row_with_all_its_positions(regime: MiniBatch) -> None:
    batches = list(RowsModule({"train": ROWS}, regime, 5).batches(1))
    seen = Rows(*(torch.cat(column) for column in zip(*(batch.rows for batch in batches), strict=True)))
    order = torch.tensor([int((ROWS.weight == one).flatten(1).all(1).nonzero()[0]) for one in seen.weight])
    assert sorted(order.tolist()) == list(range(11))
    assert all(torch.equal(column, whole[order]) for column, whole in zip(seen, ROWS, strict=True))


def test_batches_of_a_chunk_are_those_rows() -> None:
    steps = [(torch.tensor([4, 1, 7]), 2.0), (torch.tensor([0, 10]), 3.0)]
    for batch, (index, scale) in zip(gather_batches(ROWS, steps).batches(), steps, strict=True):
        assert batch.scale == scale and batch.rows.positions == (4, 2)
        assert all(torch.equal(column, whole[index]) for column, whole in zip(batch.rows, ROWS, strict=True))


def test_sums_and_means_are_those_of_the_observations_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.from_numpy(GENERATOR.normal(size=(11, 4, 2)))
    hidden = torch.where(WEIGHT > 0, value, math.inf)
    seen = WEIGHT.numpy() > 0
    expected = math.fsum((WEIGHT.numpy()[seen] * value.numpy()[seen]).tolist())
    for block in (2**18, 20, 1):
        monkeypatch.setattr("mlefw.rows.rows._BLOCK", block)
        assert float(weighted_sum(WEIGHT, hidden)) == pytest.approx(expected, rel=1e-13)
    means = ROWS.row_means(hidden)
    for k in range(11):
        assert float(means[k]) == pytest.approx(np.average(value[k].numpy(), weights=WEIGHT[k].numpy()), rel=1e-12)
    masked = ROWS._replace(weight=torch.zeros_like(WEIGHT))
    assert torch.equal(masked.row_means(hidden), torch.zeros(11).double())


def test_observations_are_flattened_row_by_row_and_kept_without_masked_ones() -> None:
    eta = torch.randn(11, 4, 2, 3)
    flat, y, weight = ROWS.flattened(eta)
    assert torch.equal(flat[9], eta[1, 0, 1]) and y[9] == ROWS.y[1, 0, 1] and weight[9] == WEIGHT[1, 0, 1]
    alone = observation_rows(ROWS)
    assert alone.num_rows == int((WEIGHT > 0).sum()) and alone.population == ROWS.population
    assert alone.input_shape == (0,) and torch.equal(alone.y, ROWS.y[WEIGHT > 0])


def test_rows_of_one_observation_are_as_they_are() -> None:
    table = Rows(torch.randn(5, 2).double(), torch.randn(5).double(), torch.ones(5).double(), torch.zeros(5).double())
    eta = torch.randn(5, 1)
    assert all(a is b for a, b in zip(table.flattened(eta), (eta, table.y, table.weight), strict=True))
    assert table.row_means(eta) is eta and table.row_weight is table.weight
