"""What models get of images, series and tokens: statistics by channel, dtypes, and flattening."""

import numpy as np
import pytest
import torch
from torch import nn

from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.tensor_inputs import StandardizedChannels, Tokens, row_statistics, unit_statistics


def rows(x: np.ndarray, weight: np.ndarray | None = None, positions: tuple[int, ...] = ()) -> Rows:
    ones = torch.ones(len(x), *positions, dtype=torch.float64)
    weight = ones if weight is None else torch.tensor(np.asarray(weight), dtype=torch.float64)
    return Rows(torch.tensor(x), torch.zeros(len(x)), weight, torch.zeros(len(x)))


SHAPES = {
    "image": (RowShape((3, 4, 5)), (0, 2, 3), (3, 1, 1)),
    "volume": (RowShape((2, 3, 2, 2)), (0, 2, 3, 4), (2, 1, 1, 1)),
    "series": (RowShape((6, 2), (6,)), (0, 1), (1, 2)),
    "matrix": (RowShape((6, 2)), (0, 1, 2), (1, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_statistics_are_those_of_numpy_over_rows_and_pixels(name: str, dtype: str) -> None:
    shape, axes, broadcast = SHAPES[name]
    x = np.random.default_rng(0).integers(0, 255, size=(50, *shape.input_shape)).astype(dtype)
    mean, scale = row_statistics(rows(x, positions=shape.positions), shape, standardize=True)
    assert mean.shape == scale.shape == broadcast == unit_statistics(shape)[0].shape
    assert mean.dtype == scale.dtype == torch.float64
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axes, keepdims=True)[0], rtol=1e-13)
    np.testing.assert_allclose(scale, wide.std(axes, keepdims=True)[0], rtol=1e-13)


def test_weights_are_frequencies_and_a_row_counts_by_its_observations() -> None:
    draw = np.random.default_rng(0)
    x, weight = draw.normal(size=(30, 2, 3, 3)), draw.integers(0, 4, size=30)
    shape = RowShape((2, 3, 3))
    repeated = row_statistics(rows(np.repeat(x, weight, axis=0)), shape, True)
    for found, expected in zip(row_statistics(rows(x, weight), shape, True), repeated, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    masks = draw.integers(0, 2, size=(30, 3, 3)).astype(float)
    found = row_statistics(rows(x, masks), RowShape((2, 3, 3), (3, 3)), True)[0]
    expected = np.average(x.mean((2, 3)), axis=0, weights=masks.sum((1, 2)))
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-13)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(5, 2, size=(37, 2, 4, 4))
    whole = row_statistics(rows(x), RowShape((2, 4, 4)), True)
    monkeypatch.setattr("mlefw.rows.tensor_inputs._CELLS", 5 * 32)
    for found, expected in zip(row_statistics(rows(x), RowShape((2, 4, 4)), True), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_constant_channel_has_scale_one() -> None:
    x = np.stack([np.full((20, 3, 3), 7, np.uint8), np.arange(180, dtype=np.uint8).reshape(20, 3, 3)], 1)
    mean, scale = row_statistics(rows(x), RowShape((2, 3, 3)), True)
    assert mean.flatten().tolist() == pytest.approx([7, 89.5], rel=1e-14)
    assert scale.flatten().tolist() == pytest.approx([1, np.arange(180).std()], rel=1e-14)


def test_without_standardisation_numbers_stay() -> None:
    x = np.random.default_rng(0).integers(0, 255, size=(5, 2, 3, 3)).astype(np.uint8)
    mean, scale = row_statistics(rows(x), RowShape((2, 3, 3)), False)
    layer = StandardizedChannels(nn.Conv2d(2, 1, 1), mean, scale, RowShape((2, 3, 3)))
    assert torch.equal(layer.standardize(torch.tensor(x)), torch.tensor(x).float())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_model_gets_numbers_of_its_own_precision(dtype: str, is_wide: bool) -> None:
    shape = RowShape((2, 3, 3))
    x = np.random.default_rng(0).integers(0, 255, size=(5, 2, 3, 3)).astype(dtype)
    model = nn.Linear(18, 1).double() if is_wide else nn.Linear(18, 1)
    layer = StandardizedChannels(model, *row_statistics(rows(x), shape, True), shape, is_flat=True)
    z = layer.standardize(torch.tensor(x))
    assert z.dtype == model.weight.dtype and z.shape == (5, 18)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 2, 3), keepdims=True)) / wide.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        z, expected.reshape(5, 18), rtol=1e-12 if is_wide else 2e-5, atol=1e-12 if is_wide else 3e-7
    )
    assert torch.equal(layer(torch.tensor(x)), model(z))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_large_numbers_are_standardised_in_64_bit(dtype: torch.dtype) -> None:
    """In float32 a million has steps of a sixteenth, and 2^30 of a hundred."""
    x = (2**30 + torch.arange(48).reshape(6, 2, 2, 2)).to(dtype)
    shape = RowShape((2, 2, 2))
    statistics = row_statistics(Rows(x, torch.zeros(6), torch.ones(6).double(), torch.zeros(6)), shape, True)
    z = StandardizedChannels(nn.Conv2d(2, 1, 1), *statistics, shape).standardize(x)
    small = (x - 2**30).double()
    expected = (small - small.mean((0, 2, 3), True)) / small.std((0, 2, 3), correction=0, keepdim=True)
    np.testing.assert_allclose(z, expected, rtol=1e-6)


def test_statistics_are_buffers_and_the_augmentation_adds_none() -> None:
    shape = RowShape((2, 3, 3))
    layer = StandardizedChannels(nn.Conv2d(2, 1, 1), *unit_statistics(shape), shape, augment=nn.Identity())
    assert set(layer.state_dict()) == {"mean", "scale", "model.weight", "model.bias"}
    assert layer.typical().shape == (1, 2, 3, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_tokens_reach_the_model_as_int64(dtype: torch.dtype) -> None:
    shape = RowShape((6,), (6,), 5)
    layer = Tokens(nn.Embedding(5, 3), shape)
    x = torch.tensor([[0, 1, 2, 3, 4, 0]]).to(dtype)
    assert layer.standardize(x).dtype == torch.int64
    assert torch.equal(layer(x), layer.model.weight[[0, 1, 2, 3, 4, 0]][None])
    assert layer.typical().tolist() == [[0] * 6]
    assert not [*layer.buffers()]


def test_what_a_model_may_ask_of_a_row() -> None:
    image, text, table = RowShape((3, 4, 5)), RowShape((6,), (6,), 65, True), RowShape((13,))
    assert [image.num_features, image.length, image.num_tokens, image.is_table] == [60, None, None, False]
    assert [text.num_features, text.length, text.num_tokens, text.is_table] == [65, 6, 65, False]
    assert [table.num_features, table.length, table.num_tokens, table.is_table] == [13, None, None, True]
    assert table.with_inputs(20).input_shape == (20,)
    assert [str(one) for one in (image, text, table)] == [
        *("numbers of shape (3, 4, 5)", "6 tokens of 65 kinds", "13 features")
    ]
