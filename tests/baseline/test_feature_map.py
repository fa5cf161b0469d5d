"""Feature maps of arrays: principal components against scikit-learn and numpy, averages, and what is kept of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from mlefw.baseline.arrays import ArrayFeatures
from mlefw.baseline.feature_map import FeatureMap, all_inputs, averages, averages_adjoint, principal_components
from mlefw.baseline.work import LeftOutError
from mlefw.errors import UsageError
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape


def images(x: np.ndarray, weight: np.ndarray | None = None) -> tuple[Rows, RowShape, torch.Tensor]:
    """Rows of images without a target to speak of, their shape, and scales of one."""
    one = np.ones(len(x)) if weight is None else weight
    rows = Rows(torch.from_numpy(x), torch.zeros(len(x)), torch.from_numpy(one), torch.zeros(len(x)).double())
    shape = RowShape(x.shape[1:])
    return rows, shape, torch.ones(shape.num_features, dtype=torch.float64)


def digits() -> np.ndarray:
    return load_digits().images[:, None].astype(np.uint8)


def test_components_are_those_of_scikit_learn_with_variance_one() -> None:
    x = digits()
    found = principal_components(*images(x), "pca:12")
    z = found.columns(torch.from_numpy(x)).numpy()
    model = PCA(12, svd_solver="full").fit(x.reshape(-1, 64).astype(float))
    known = model.transform(x.reshape(-1, 64)) / np.sqrt(model.explained_variance_ * (len(x) - 1) / len(x))
    known *= np.sign((known * z).sum(0))
    np.testing.assert_allclose(z, known, atol=1e-10)
    np.testing.assert_allclose(z.T @ z / len(x), np.eye(12), atol=1e-12)
    assert found.vectors is not None
    largest = found.vectors.abs().argmax(0)
    assert bool((found.vectors[largest, torch.arange(12)] > 0).all())
    assert found.words == "12 principal components"


def test_a_weight_is_a_frequency() -> None:
    x, weight = digits()[:300], np.random.default_rng(0).integers(0, 4, 300)
    found = principal_components(*images(x, weight.astype(float)), "pca:7")
    repeated = principal_components(*images(x.repeat(weight, 0)), "pca:7")
    torch.testing.assert_close(found.vectors, repeated.vectors, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.center, repeated.center, rtol=1e-12, atol=1e-12)


def test_channels_count_as_the_model_sees_them() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(200, 3, 4, 4)) @ random.normal(size=(4, 4))
    x *= np.array([1.0, 100.0, 0.01]).reshape(1, 3, 1, 1)
    rows, shape, _ = images(x)
    scale = x.std((0, 2, 3))
    found = principal_components(rows, shape, torch.from_numpy(scale.repeat(16)), "pca:5")
    z = (x / scale.reshape(1, 3, 1, 1)).reshape(200, -1)
    left = np.linalg.svd(z - z.mean(0), full_matrices=False)[0][:, :5] * np.sqrt(200)
    columns = found.columns(rows.x).numpy()
    np.testing.assert_allclose(np.abs(columns), np.abs(left), atol=1e-9)


def test_components_without_variance_are_left_out() -> None:
    random = np.random.default_rng(0)
    x = (random.normal(size=(30, 3)) @ random.normal(size=(3, 25))).reshape(30, 1, 5, 5)
    assert principal_components(*images(x), "pca:50").num_columns == 3
    assert principal_components(*images(x[:2]), "pca:50").num_columns == 1


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
def test_averages_are_means_of_blocks_also_at_the_edges(pool: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 2, 7, 5)).astype(np.uint8)
    shape = RowShape((2, 7, 5))
    blocks = [
        x[:, c, i : i + pool, j : j + pool].mean((1, 2))
        for c in range(2)
        for i in range(0, 7, pool)
        for j in range(0, 5, pool)
    ]
    found = averages(torch.from_numpy(x), shape, pool)
    np.testing.assert_allclose(found.numpy(), np.stack(blocks, 1), rtol=1e-14)
    slopes = torch.randn(3, found.shape[1], dtype=torch.float64)
    spread = averages_adjoint(slopes, shape, pool)
    torch.testing.assert_close(torch.from_numpy(x).flatten(1).double() @ spread.T, found @ slopes.T)


def test_large_images_are_averaged_down_first() -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 66, 50)).astype(np.uint8)
    found = principal_components(*images(x), "pca:4")
    assert found.pool == 2 and found.center is not None and found.center.shape == (3 * 33 * 25,)
    assert found.words == "4 principal components of means of 2 x 2 pixels"
    assert principal_components(*images(digits()), "pca:4", 3e5).pool == 3
    with pytest.raises(LeftOutError, match=r"baseline\.max_work=1"):
        principal_components(*images(digits()), "pca:4", 1.0)


def test_a_linear_model_of_components_is_one_of_pixels() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 66, 50)).astype(np.uint8)
    rows, shape, _ = images(x)
    found = principal_components(rows, shape, torch.ones(shape.num_features).double(), "pca:6")
    weight, bias = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    mean, scale = torch.rand(shape.num_features).double() * 200, torch.rand(shape.num_features).double() + 1
    slopes, start = found.on_inputs(weight, bias, mean, scale)
    z = (rows.x.flatten(1).double() - mean) / scale
    torch.testing.assert_close(z @ slopes.T + start, found.columns(rows.x) @ weight.T + bias, rtol=1e-9, atol=1e-9)


def test_auto_takes_all_inputs_up_to_three_thousand_coefficients() -> None:
    rows, shape, scale = images(digits())
    features = ArrayFeatures(shape, "auto", scale)
    assert features.chosen(46) == "pixels" and features.chosen(47) == "pca:50"
    assert features.map(rows, "pixels").words == "64 pixels"
    assert ArrayFeatures(RowShape((8,), (8,)), "auto", scale).shape.positions
    with pytest.raises(LeftOutError, match="no exact estimate"):
        ArrayFeatures(RowShape((8, 2), (8,)), "auto", scale).map(rows, "pixels")


def test_large_pixels_stay_in_a_type_of_their_own() -> None:
    rows, shape, _ = images(digits())
    whole = all_inputs(shape)
    assert whole.rows(rows).x.dtype == torch.float64
    many = rows._replace(x=rows.x[:1].expand(2**21, 1, 8, 8))
    assert whole.rows(many).x.dtype == torch.uint8


def test_a_map_is_kept_and_what_does_not_fit_is_refused() -> None:
    rows, shape, scale = images(digits())
    found = principal_components(rows, shape, scale, "pca:5")
    again = FeatureMap.restore(found.state(), shape)
    assert torch.equal(again.columns(rows.x), found.columns(rows.x)) and again.words == found.words
    assert FeatureMap.restore(all_inputs(shape).state(), shape).is_whole
    state = found.state()
    assert found.center is not None
    wrong = [
        {**state, "setting": "word"},
        {**state, "pool": 0},
        {**state, "pool": 2},
        {**state, "center": found.center[:-1]},
        {**state, "center": found.center * float("nan")},
        {**state, "vectors": found.center},
        {key: value for key, value in state.items() if key != "vectors"},
        [],
    ]
    for one in wrong:
        with pytest.raises(UsageError):
            FeatureMap.restore(one, shape)
    with pytest.raises(UsageError):
        FeatureMap.restore(state, replace(shape, input_shape=(1, 9, 8)))
