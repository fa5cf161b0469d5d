"""Synthetic rows: their moments are those of the stated model, within five standard errors."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlefw.data.synthetic import Synthetic
from mlefw.errors import UsageError

SETTINGS: dict[str, Any] = {
    "num_rows": 20000,
    "num_features": 2,
    "coefficients": [0.8, -0.3],
    "log_scale_coefficients": [0.2, 0.4],
    "intercept": 0.25,
    "scale": 1.5,
}


def draw(kind: str, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    columns = Synthetic(kind=kind, **{**SETTINGS, **more}).read().columns  # type: ignore[arg-type]
    return np.column_stack([columns["x0"], columns["x1"]]), columns["y"]


def truth(kind: str, x: np.ndarray) -> Any:
    eta = 0.25 + 0.8 * x[:, 0] - 0.3 * x[:, 1]
    return {
        "gaussian": lambda: stats.norm(eta, 1.5),
        "heteroscedastic": lambda: stats.norm(eta, 1.5 * np.exp(0.2 * x[:, 0] + 0.4 * x[:, 1])),
        "laplace": lambda: stats.laplace(eta, 1.5),
        "bernoulli": lambda: stats.bernoulli(1 / (1 + np.exp(-eta))),
        "poisson": lambda: stats.poisson(np.exp(eta)),
    }[kind]()


@pytest.mark.parametrize("kind", ["gaussian", "heteroscedastic", "laplace"])
def test_continuous_targets_follow_the_model(kind: str) -> None:
    x, y = draw(kind)
    uniform = truth(kind, x).cdf(y)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    slope = np.abs(np.corrcoef(np.column_stack([x, uniform]).T)[2, :2])
    assert slope.max() < 5 / np.sqrt(len(y))


@pytest.mark.parametrize("kind", ["bernoulli", "poisson"])
def test_discrete_targets_follow_the_model(kind: str) -> None:
    x, y = draw(kind)
    expected = truth(kind, x)
    z = (y - expected.mean()) / expected.std()
    scores = z @ np.column_stack([np.ones(len(y)), x]) / np.sqrt(len(y))
    assert np.abs(scores).max() < 5
    assert np.mean(z**2) == pytest.approx(1, abs=0.05)


def test_classes_follow_the_model() -> None:
    x, y = draw("categorical", num_classes=3)
    logits = np.column_stack(
        [np.zeros(len(y)), 0.25 + 0.8 * x[:, 0] - 0.3 * x[:, 1], 0.25 - 0.3 * x[:, 0] + 0.8 * x[:, 1]]
    )
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = (y[:, None] == np.arange(3)) - p
    scores = residual.T @ np.column_stack([np.ones(len(y)), x]) / np.sqrt(len(y))
    assert np.abs(scores).max() < 5 * 0.5
    assert set(y) == {0.0, 1.0, 2.0}


def test_seeds() -> None:
    first, again, other = (Synthetic(draw_seed=seed).read().columns["y"] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_default_coefficients() -> None:
    assert Synthetic(num_features=3).coefficients == [0.5, 0.0, -0.5]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"coefficients": [1.0]}, "data.coefficients has 1 values"),
        ({"num_rows": 0}, "data.num_rows=0"),
        ({"num_classes": 1}, "data.num_classes=1"),
        ({"scale": 0.0}, "data.scale=0.0"),
        ({"kind": "gauss"}, "data.kind=gauss"),
    ],
)
def test_refuses(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Synthetic(**settings)
