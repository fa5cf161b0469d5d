"""Tails and quantiles against scipy.stats."""

import numpy as np
import pytest
from scipy import stats

from mlefw.distribution import reference

P = np.array([1e-12, 1e-4, 0.025, 0.5, 0.95, 0.975, 1 - 1e-9])
Z = np.array([-8.0, -1.0, 0.0, 1.96, 9.0, 38.0])


def test_the_normal_distribution():
    np.testing.assert_allclose(reference.normal_quantile(P), stats.norm.ppf(P), rtol=1e-13)
    np.testing.assert_allclose(reference.normal_tail(Z), stats.norm.sf(Z), rtol=1e-13)


@pytest.mark.parametrize("df", [1.0, 4.5, 300.0])
def test_students_t(df):
    np.testing.assert_allclose(reference.t_quantile(P, df), stats.t.ppf(P, df), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(reference.t_tail(Z, df), stats.t.sf(Z, df), rtol=1e-9)


@pytest.mark.parametrize("df", [1, 2, 30, 10_000])
def test_chi2(df):
    assert reference.chi2_quantile(0.95, df) == pytest.approx(stats.chi2.ppf(0.95, df), rel=1e-12)
    for x in (0.0, 0.5 * df, 2.0 * df, 40.0 + df):
        assert reference.chi2_tail(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-12)


def test_the_beta_distribution():
    a, b = np.array([0.5, 3.0, 900.5]), np.array([400.0, 2.0, 0.5])
    for p in (0.025, 0.975):
        np.testing.assert_allclose(reference.beta_quantile(p, a, b), stats.beta.ppf(p, a, b), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.01, 3.0, 250.0])
def test_the_poisson_distribution(mean):
    for count in (0, 1, 4, 260):
        assert reference.poisson_tail(count, mean) == pytest.approx(stats.poisson.sf(count - 1, mean), rel=1e-12)


@pytest.mark.parametrize("n", [1, 10, 137, 1_000_000])
def test_the_binomial_distribution(n):
    share = np.concatenate([np.linspace(0, 1, 101), [1e-7, 1 - 1e-7]])
    for p in (0.025, 0.975):
        np.testing.assert_array_equal(reference.binomial_quantile(p, n, share), stats.binom.ppf(p, n, share))
