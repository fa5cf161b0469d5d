"""Figures of rows of several observations: standard errors by cluster against statsmodels, and what is left out."""

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
import torch

from mlefw.baseline.distance import paired
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.metric.calibration_error import CalibrationError
from mlefw.metric.nll import Nll
from mlefw.metric.pit import Pit
from mlefw.rows.rows import Rows, constant
from mlefw.run.stored_estimates import _WeightedMean

G, T = 40, 7


def panel(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets with an effect of each row, (G, T), and weights, some of them zero."""
    random = np.random.default_rng(seed)
    y = random.normal(size=(G, 1)) + random.normal(size=(G, T))
    weight = random.integers(0, 3, (G, T)).astype(float)
    weight[3] = 0
    return torch.from_numpy(y), torch.from_numpy(weight)


def clustered(value: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Mean and standard error by rows: weighted least squares on a constant, of statsmodels."""
    seen = weight.sum(1) > 0
    groups = np.repeat(np.arange(seen.sum()), value.shape[1])
    fit = sm.WLS(value[seen].ravel(), np.ones(seen.sum() * value.shape[1]), weights=weight[seen].ravel()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}
    )
    # Its correction G / (G − 1) · (N − 1) / (N − K) has K = 1 coefficient.
    return float(fit.params[0]), float(fit.bse[0])


def figures(metrics: list[Metric], y: torch.Tensor, weight: torch.Tensor, sizes: tuple[int, ...]) -> dict[str, float]:
    head, accumulator = GaussianHead(0.8), Accumulator(metrics)
    head.center.fill_(0.3)
    rows = Rows(torch.zeros(G, 0), y, weight, constant(0.0, (G, T)))
    for part, count in zip([*map(rows.take, slices(sizes))], sizes, strict=True):
        eta, flat, share = part.flattened(torch.full((count, T, 1), 0.3, dtype=torch.float64))
        accumulator.add(accumulator.of_block(head(eta), flat, share, count))
    return {name: float(value) for name, value in accumulator.figures().items()}


def slices(sizes: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum(sizes)
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize("sizes", [(G,), (1, 30, 9)])
def test_the_standard_error_of_the_nll_is_the_clustered_one_of_statsmodels(sizes: tuple[int, ...]) -> None:
    y, weight = panel()
    nll = torch.from_numpy(-scipy.stats.norm(0.3, 0.8).logpdf(y.numpy()))
    mean, error = clustered(nll.numpy(), weight.numpy())
    found = figures([Nll()], y, weight, sizes)
    assert found["nll_nats"] == pytest.approx(mean, rel=1e-12)
    assert found["nll_se"] == pytest.approx(error, rel=1e-10)
    independent = float(torch.sqrt((weight * (nll - mean).square()).sum() / weight.sum() / (weight.sum() - 1)))
    assert found["nll_se"] > 1.3 * independent


def test_paired_and_streamed_differences_have_the_clustered_error() -> None:
    y, weight = panel(1)
    mean, error = clustered(y.numpy(), weight.numpy())
    row_weight = weight.sum(1)
    rows = Rows(torch.zeros(G, 0), y, weight, constant(0.0, (G, T)))
    assert paired(rows.row_means(y), row_weight, clustered=True) == pytest.approx((mean, error), rel=1e-12)
    streamed = _WeightedMean()
    for part in (slice(0, 17), slice(17, G)):
        streamed.add(rows.take(part).row_means(y[part]), row_weight[part], clustered=True)
    assert (streamed.value, streamed.error) == pytest.approx((mean, error), rel=1e-10)


def test_one_observation_a_row_of_weight_one_has_the_plain_error() -> None:
    value, weight = torch.randn(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    assert paired(value, weight, clustered=True) == pytest.approx(paired(value, weight), rel=1e-13)


def test_figures_that_take_observations_for_independent_are_left_out() -> None:
    y, weight = panel()
    assert figures([Pit()], y, weight, (G,)).keys() == {"pit_rmse"}
    head, accumulator = CategoricalHead(3), Accumulator([CalibrationError()])
    block = head(torch.randn(12, 3)), torch.arange(12) % 3, torch.ones(12).double()
    accumulator.add(accumulator.of_block(*block, 4))
    assert accumulator.figures().keys() == {"ece_15"}
    accumulator.add(accumulator.of_block(*block))
    assert accumulator.figures().keys() == {"ece_15", "ece_null", "ece_debiased"}
