"""Weights of a mixture by maximum likelihood, against a general optimiser."""

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from mlefw.score.stacking import stacked


def nll_of(columns: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(columns, 1))


def least(nll: np.ndarray, weight: np.ndarray) -> float:
    """The least mean NLL over all weights, by sequential quadratic programming."""

    def mean(share: np.ndarray) -> float:
        return float(weight @ -special.logsumexp(-nll, axis=1, b=np.maximum(share, 0)) / weight.sum())

    count = nll.shape[1]
    one = {"type": "eq", "fun": lambda share: share.sum() - 1}
    start = np.full(count, 1 / count)
    found = optimize.minimize(mean, start, bounds=[(0, 1)] * count, constraints=[one], options={"ftol": 1e-14})
    return float(found.fun)


@pytest.mark.parametrize("is_dominated", [False, True])
def test_the_least_nll(is_dominated: bool) -> None:
    """In the interior, and with a third model that is worse than the first everywhere."""
    random = np.random.default_rng(0)
    y = random.normal(size=300)
    y[::3] += 4
    y[::10] *= 4
    columns = [-stats.norm(0, 1).logpdf(y), -stats.norm(4, 1).logpdf(y)]
    columns.append(columns[0] + 1 if is_dominated else -stats.t(3, 1).logpdf(y))
    weight = random.integers(1, 4, 300).astype(float)
    found = stacked(nll_of(columns), torch.from_numpy(weight))
    best = least(np.stack(columns, 1), weight)
    assert found.nll == pytest.approx(best, abs=1e-7)
    assert found.gap <= 1e-9
    assert found.weight.sum().item() == pytest.approx(1, abs=1e-12)
    assert bool((found.weight >= 0).all())
    assert bool(found.weight[2] < 1e-6) == is_dominated, found.weight


def test_a_weight_of_two_is_the_row_twice() -> None:
    random = np.random.default_rng(1)
    nll, weight = random.exponential(size=(50, 3)), random.integers(0, 3, 50)
    once = stacked(torch.from_numpy(nll), torch.from_numpy(weight).double())
    twice = stacked(torch.from_numpy(nll.repeat(weight, 0)), torch.ones(int(weight.sum()), dtype=torch.float64))
    torch.testing.assert_close(once.weight, twice.weight, rtol=1e-9, atol=1e-12)


def test_rows_without_any_density() -> None:
    """A row that one model excludes needs the other; a row that all exclude says nothing, and costs infinity."""
    nll = torch.tensor([[0.0, 1.0], [float("inf"), 1.0], [1.0, 1.0]], dtype=torch.float64)
    found = stacked(nll, torch.ones(3, dtype=torch.float64))
    assert 0 < found.weight[1] < 1 and np.isfinite(found.nll)
    more = torch.cat([nll, torch.full((1, 2), float("inf"), dtype=torch.float64)])
    again = stacked(more, torch.ones(4, dtype=torch.float64))
    assert again.nll == float("inf")
    torch.testing.assert_close(again.weight, found.weight, rtol=1e-6, atol=1e-8)
