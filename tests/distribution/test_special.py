"""Incomplete gamma and beta functions, by both of their ways, against scipy and mpmath."""

import mpmath
import numpy as np
import pytest
import scipy.special
import torch

from mlefw.distribution import special

LEVELS = np.array([1e-10, 1e-4, 0.1, 0.5, 0.9])


def t(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("a", [0.02, 0.5, 1.0, 3.0, 20.0, 100.0, 1e3, 1e5])
def test_gamma_tails(a):
    x = np.concatenate([scipy.special.gammaincinv(a, LEVELS), scipy.special.gammainccinv(a, LEVELS)])
    x = x[x > 1e-290]
    lower, upper = special.gamma_tails(t(a), t(x))
    np.testing.assert_allclose(lower, scipy.special.gammainc(a, x), rtol=1e-11)
    np.testing.assert_allclose(upper, scipy.special.gammaincc(a, x), rtol=1e-11)
    np.testing.assert_allclose(special.gammainc(t(a).expand(len(x)), t(x)), lower, rtol=1e-11)
    np.testing.assert_allclose(special.gammaincc(t(a).expand(len(x)), t(x)), upper, rtol=1e-11)


@pytest.mark.parametrize("a", [0.5, 3.0, 100.0, 1e4])
@pytest.mark.parametrize("b", [0.5, 3.0, 100.0, 1e5])
def test_beta_tails(a, b):
    x = scipy.special.betaincinv(a, b, LEVELS)
    lower, upper = special.beta_tails(t(a), t(b), t(x), t(1 - x))
    for at, got, other in zip(x, lower.tolist(), upper.tolist(), strict=True):
        assert got == pytest.approx(scipy.special.betainc(a, b, at), rel=1e-10)
        assert other == pytest.approx(1 - scipy.special.betainc(a, b, at), rel=1e-10)
    np.testing.assert_allclose(special.betainc(t(a).expand(5), t(b), t(x), t(1 - x)), lower, rtol=1e-10)


def test_beta_against_many_digits():
    for a, b, x in ((0.3, 0.7, 1e-8), (40.0, 3.0, 0.7), (2.0, 900.0, 0.03)):
        with mpmath.workdps(40):
            expected = float(mpmath.betainc(a, b, 0, x, regularized=True))
        assert special.beta_tails(t(a), t(b), t(x), t(1 - x))[0].item() == pytest.approx(expected, rel=1e-11)
        assert special.betainc(t(a), t(b), t(x), t(1 - x)).item() == pytest.approx(expected, rel=1e-12)


def test_ends():
    one = t(1.5)
    assert [v.item() for v in special.gamma_tails(one, t(0.0))] == [0.0, 1.0]
    assert [v.item() for v in special.beta_tails(one, one, t(0.0), t(1.0))] == [0.0, 1.0]
    assert [v.item() for v in special.beta_tails(one, one, t(1.0), t(0.0))] == [1.0, 0.0]


@pytest.mark.parametrize("a", [0.5, 8.0, 300.0])
def test_searches_off_the_cpu_invert(a):
    p = t(LEVELS)
    found = special._search(lambda s: special.gamma_tails(t(a), s.exp())[0], p).exp()
    np.testing.assert_allclose(found, scipy.special.gammaincinv(a, LEVELS), rtol=1e-10)


def test_stirling_error():
    for a in (0.01, 1.0, 15.9, 16.1, 1e4):
        with mpmath.workdps(40):
            m = mpmath.mpf(a)
            expected = mpmath.loggamma(m) - ((m - 0.5) * mpmath.log(m) - m + mpmath.log(2 * mpmath.pi) / 2)
        assert special.stirling_error(t(a)).item() == pytest.approx(float(expected), abs=1e-14)
