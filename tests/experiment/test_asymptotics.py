"""Consistency, efficiency, normality, coverage and bias, each within four standard errors of what theory says."""

import numpy as np
import pytest
import statsmodels.api as sm

from mlefw.experiment.asymptotics import INTERCEPT, SLOPE, Asymptotics, bound, slopes, variance_ratios


def test_fits_are_those_of_statsmodels() -> None:
    found = slopes(3, 100, seed=5)
    random = np.random.default_rng((5, 100))
    x = random.normal(size=(3, 100))
    y = random.random((3, 100)) < 1 / (1 + np.exp(-INTERCEPT - SLOPE * x))
    for k in range(3):
        reference = sm.Logit(y[k].astype(float), sm.add_constant(x[k])).fit(disp=0)
        assert found.estimate[k] == pytest.approx(reference.params[1], abs=1e-6)
        assert found.error[k] == pytest.approx(reference.bse[1], abs=1e-6)


def test_the_bound_is_the_inverse_mean_information() -> None:
    x = np.random.default_rng(0).normal(size=1_000_000)
    p = 1 / (1 + np.exp(-INTERCEPT - SLOPE * x))
    design = np.stack([x, np.ones_like(x)], 1)
    information = (design * (p * (1 - p))[:, None]).T @ design / len(x)
    assert bound(1) == pytest.approx(np.linalg.inv(information)[0, 0], rel=0.01)


def test_variance_is_biased_by_n_minus_two_over_n() -> None:
    for size in (4, 10):
        ratio = variance_ratios(4000, size, seed=2)
        # n σ̂² / σ² is χ² with n − 2 degrees of freedom.
        error = np.sqrt(2 * (size - 2)) / size / np.sqrt(4000)
        assert abs(ratio.mean() - (size - 2) / size) < 4 * error


@pytest.mark.slow
def test_the_promises_of_maximum_likelihood() -> None:
    values = Asymptotics(sizes=[400, 800, 1600, 3200]).run().values
    # Relative bias of variance and error is O(1 / n): 3 % at n = 400 of a logistic slope.
    assert abs(values["rate"] + 0.5) < 4 * values["rate_se"] + 0.01
    assert abs(values["efficiency"] - 1) < 4 * values["efficiency_se"] + 0.01
    assert abs(values["coverage"] - 0.95) < 4 * values["coverage_se"]
    assert values["normal_p"] > 1e-4
