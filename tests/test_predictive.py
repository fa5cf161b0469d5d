"""Cdf, quantiles, intervals and PIT of any distribution."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Bernoulli, Categorical, Gamma, Laplace, Normal, Poisson

from mlefw import predictive

LEVELS = (1e-4, 0.05, 0.25, 0.5, 0.75, 0.95, 0.9999)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PROBS = [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 1.0, 0.0, 0.0]]

CONTINUOUS = {
    "normal": (
        Normal(t(0, 5, -1e6), t(1, 1e-3, 1e3)),
        [scipy.stats.norm(*p) for p in ((0, 1), (5, 1e-3), (-1e6, 1e3))],
    ),
    "laplace": (
        Laplace(t(0, 5, -1e6), t(1, 1e-3, 1e3)),
        [scipy.stats.laplace(*p) for p in ((0, 1), (5, 1e-3), (-1e6, 1e3))],
    ),
    "gamma": (
        Gamma(t(5, 1, 80), t(0.5, 1, 1e3), validate_args=False),
        [scipy.stats.gamma(a, scale=1 / b) for a, b in ((5, 0.5), (1, 1), (80, 1e3))],
    ),
}

DISCRETE = {
    "poisson": (
        Poisson(t(1e-3, 0.7, 3, 150, 1e6), validate_args=False),
        [scipy.stats.poisson(r) for r in (1e-3, 0.7, 3, 150, 1e6)],
    ),
    "bernoulli": (Bernoulli(t(0.02, 0.5, 0.97)), [scipy.stats.bernoulli(p) for p in (0.02, 0.5, 0.97)]),
    "categorical": (
        Categorical(torch.tensor(PROBS, dtype=torch.float64)),
        [scipy.stats.rv_discrete(values=(range(4), p)) for p in PROBS],
    ),
}

ALL = CONTINUOUS | DISCRETE

each = pytest.mark.parametrize("name", sorted(ALL))
continuous = pytest.mark.parametrize("name", sorted(CONTINUOUS))
discrete = pytest.mark.parametrize("name", sorted(DISCRETE))


@each
def test_which_is_discrete(name):
    assert predictive.is_discrete(ALL[name][0]) == (name in DISCRETE)


@each
@pytest.mark.parametrize("level", LEVELS)
def test_quantile_against_scipy(name, level):
    distribution, frozen = ALL[name]
    got = predictive.quantile(distribution, level)
    assert got.shape == (len(frozen),)
    if name in DISCRETE:
        assert got.tolist() == [f.ppf(level) for f in frozen]
    else:
        np.testing.assert_allclose(got, [f.ppf(level) for f in frozen], rtol=1e-7)


@continuous
@pytest.mark.parametrize("level", LEVELS)
def test_cdf_undoes_the_quantile(name, level):
    distribution, _ = CONTINUOUS[name]
    np.testing.assert_allclose(predictive.cdf(distribution, predictive.quantile(distribution, level)), level, rtol=1e-9)


@discrete
@pytest.mark.parametrize("level", LEVELS)
def test_a_discrete_quantile_is_the_first_value_that_reaches_the_level(name, level):
    distribution, _ = DISCRETE[name]
    q = predictive.quantile(distribution, level)
    assert bool((predictive.cdf(distribution, q) >= level).all())
    assert bool((predictive.cdf(distribution, q - 1) < level).all())


@each
def test_cdf_against_scipy(name):
    distribution, frozen = ALL[name]
    for level in LEVELS:
        y = [f.ppf(level) for f in frozen]
        expected = [f.cdf(v) for f, v in zip(frozen, y, strict=True)]
        got = predictive.cdf(distribution, t(*y))
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-14)


@discrete
@pytest.mark.parametrize(("y", "where"), [(-1.0, -1), (-0.5, -1), (0.0, 0), (0.5, 0), (1.0, 1), (1.999, 1), (2.0, 2)])
def test_a_discrete_cdf_is_a_staircase_from_zero(name, y, where):
    distribution, frozen = DISCRETE[name]
    got = predictive.cdf(distribution, torch.full((len(frozen),), y, dtype=torch.float64))
    np.testing.assert_allclose(got, [f.cdf(where) for f in frozen], rtol=1e-9, atol=1e-13)


@discrete
def test_a_discrete_cdf_ends_at_one(name):
    distribution, frozen = DISCRETE[name]
    got = predictive.cdf(distribution, torch.full((len(frozen),), 1e9, dtype=torch.float64))
    np.testing.assert_allclose(got, 1.0, rtol=1e-15)


@each
def test_intervals_are_central(name):
    distribution, frozen = ALL[name]
    for level in (0.5, 0.9):
        low, high = predictive.interval(distribution, level)
        np.testing.assert_allclose(low, [f.ppf((1 - level) / 2) for f in frozen], rtol=1e-7)
        np.testing.assert_allclose(high, [f.ppf((1 + level) / 2) for f in frozen], rtol=1e-7)


@each
def test_the_pit_lies_between_the_mass_below_and_the_mass_up_to_y(name):
    distribution, frozen = ALL[name]
    y = [f.ppf(0.6) for f in frozen]
    lower, upper = predictive.pit_bounds(distribution, t(*y))
    atol = 1e-14
    np.testing.assert_allclose(upper, [f.cdf(v) for f, v in zip(frozen, y, strict=True)], rtol=1e-9, atol=atol)
    if name in CONTINUOUS:
        assert torch.equal(lower, upper)
    else:
        mass = [f.pmf(v) for f, v in zip(frozen, y, strict=True)]
        np.testing.assert_allclose(upper - lower, mass, rtol=1e-6, atol=2 * atol)


def test_whole_number_labels_are_taken_as_they_come():
    distribution, frozen = DISCRETE["categorical"]
    y = torch.tensor([0, 3, 1])
    lower, upper = predictive.pit_bounds(distribution, y)
    np.testing.assert_allclose(lower, [0.0, 0.9, 0.0], atol=1e-15)
    np.testing.assert_allclose(upper, [0.1, 1.0, 1.0], rtol=1e-15)
    assert len(frozen) == 3


@each
def test_no_rows_give_no_quantiles(name):
    empty = {
        "normal": lambda: Normal(t(), t()),
        "laplace": lambda: Laplace(t(), t()),
        "gamma": lambda: Gamma(t(), t(), validate_args=False),
        "poisson": lambda: Poisson(t()),
        "bernoulli": lambda: Bernoulli(t()),
        "categorical": lambda: Categorical(logits=torch.zeros(0, 3), validate_args=False),
    }[name]()
    assert predictive.quantile(empty, 0.3).shape == (0,)


def test_rows_of_very_different_size_do_not_disturb_each_other():
    rates = t(1e-6, 1.0, 1e9)
    for level in (0.05, 0.5, 0.95):
        expected = scipy.stats.poisson(rates.numpy()).ppf(level)
        got = predictive.quantile(Poisson(rates), level)
        assert got[:2].tolist() == expected[:2].tolist()
        assert got[2].item() == pytest.approx(expected[2], abs=1)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.5, 0.99])
def test_bisection_on_a_half_line_with_validation_switched_on(level):
    # Cantelli's bracket reaches below zero here, where a validating distribution refuses to be asked.
    got = predictive.quantile(Gamma(t(0.5, 2.0), t(1.0, 3.0)), level)
    expected = [scipy.stats.gamma(a, scale=1 / b).ppf(level) for a, b in ((0.5, 1.0), (2.0, 3.0))]
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_a_distribution_without_a_cdf_says_so():
    with pytest.raises(NotImplementedError):
        predictive.cdf(torch.distributions.VonMises(t(0.0), t(1.0)), t(0.0))


def test_the_median_of_a_laplace_is_its_location():
    assert predictive.quantile(Laplace(t(3.0), t(2.0)), 0.5).item() == 3.0
    assert predictive.cdf(Laplace(t(3.0), t(2.0)), t(3.0)).item() == 0.5
    assert math.isclose(predictive.quantile(Laplace(t(0.0), t(1.0)), 0.25).item(), -math.log(2), rel_tol=1e-14)
