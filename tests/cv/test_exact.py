"""Leave-one-out of least squares without a refit, against refits."""

import numpy as np
import pytest

from mlefw.cv.exact import _left_out

RNG = np.random.default_rng(4)


def refitted(x: np.ndarray, y: np.ndarray, weight: np.ndarray, row: int) -> tuple[float, float]:
    """NLL and residual of a row under weighted least squares on all others."""
    others = np.arange(len(y)) != row
    design = np.column_stack([np.ones(len(y)), x])
    root = np.sqrt(weight[others])
    beta = np.linalg.lstsq(root[:, None] * design[others], root * y[others], rcond=None)[0]
    residual = y - design @ beta
    square = weight[others] @ residual[others] ** 2 / weight[others].sum()
    return 0.5 * np.log(2 * np.pi * square) + residual[row] ** 2 / (2 * square), residual[row]


@pytest.mark.parametrize("kind", ["plain", "weights", "collinear", "no feature", "far from zero"])
def test_formula_agrees_with_refits(kind: str) -> None:
    x = RNG.normal(size=(25, 0 if kind == "no feature" else 3))
    weight = RNG.integers(1, 5, 25).astype(float) if kind == "weights" else np.ones(25)
    if kind == "collinear":
        x = np.column_stack([x, x[:, 0] + x[:, 1]])
    if kind == "far from zero":
        x = 1e3 * x + 1e4
    y = 7 + x.sum(1) + RNG.normal(size=25)
    nll, residual = _left_out(x, y, weight)
    expected = np.array([refitted(x, y, weight, row) for row in range(25)])
    np.testing.assert_allclose(nll, expected[:, 0], rtol=1e-8)
    np.testing.assert_allclose(residual, expected[:, 1], rtol=1e-6)


def test_a_row_that_alone_determines_a_coefficient_is_not_a_number() -> None:
    x = np.column_stack([RNG.normal(size=20), np.arange(20) == 3])
    nll, _ = _left_out(x, RNG.normal(size=20), np.ones(20))
    assert np.flatnonzero(np.isnan(nll)).tolist() == [3]
