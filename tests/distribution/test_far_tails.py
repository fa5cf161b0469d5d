"""Both tails and the quantiles of every head's distribution, from small shapes to huge ones, against many digits."""

from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution import reference, special
from mlefw.distribution.cdf import cdf, survival
from mlefw.distribution.quantile import quantile
from mlefw.head.beta import Beta
from mlefw.head.exponential import Exponential
from mlefw.head.gamma import Gamma
from mlefw.head.negative_binomial import NegativeBinomial
from mlefw.head.poisson import LogPoisson
from mlefw.head.student_t import StudentT
from mlefw.head.weibull import Weibull
from mlefw.head.zero_inflated import ZeroInflated

SHAPES = [0.003, 0.02, 0.5, 1.0, 30.0, 1e3, 1e5, 1e7, 1e10, 1e12]
SIGMAS = [-6.0, -1.0, 0.0, 1.0, 6.0]
REACH = (1, 3, 8, 20, 50, 150, 400)
"""Lengths over which an integrand is cut for the quadrature."""


def t(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def outwards(log_density: Callable[[mp.mpf], mp.mpf], length: mp.mpf) -> mp.mpf:
    """∫ exp(log_density(d)) over d > 0, for a density that falls over `length`."""
    return mp.quad(lambda d: mp.exp(log_density(d)), [0, *(k * length for k in REACH)])


def gamma_tail(shape: float, x: float, above: bool) -> float:
    """Of a gamma distribution with scale 1, by quadrature of the density of its logarithm."""
    with mp.workdps(45):
        a, at, sign = mp.mpf(shape), mp.mpf(x), 1 if above else -1
        if shape < 1e3:
            ends = (at, mp.inf) if above else (0, at)
            return float(mp.gammainc(a, *ends, regularized=True))
        length = 1 / (abs(a - at) + mp.sqrt(a))
        return float(outwards(lambda d: a * (mp.log(at) + sign * d) - at * mp.exp(sign * d) - mp.loggamma(a), length))


def beta_tail(a: float, b: float, x: mp.mpf, other: mp.mpf) -> float:
    """P(B <= x), the lower tail, by quadrature of the density of its logit."""
    a, b = mp.mpf(a), mp.mpf(b)
    constant = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    length = 1 / (abs(a * other - b * x) + mp.sqrt((a + b) * x * other))

    def log_density(d: mp.mpf) -> mp.mpf:
        share = mp.log(other + x * mp.exp(-d))
        return a * (mp.log(x) - d - share) + b * (mp.log(other) - share) - constant

    return float(outwards(log_density, length))


def at(shape: float, sigmas: float) -> float:
    return shape + sigmas * shape**0.5 if shape >= 1e3 else shape * 10 ** (sigmas / 3)


@pytest.mark.parametrize("sigmas", SIGMAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gamma_function_in_both_tails(shape: float, sigmas: float) -> None:
    x = at(shape, sigmas)
    found = special.gammainc(t(shape), t(x)), special.gammaincc(t(shape), t(x))
    elsewhere = special.gamma_tails(t(shape), t(x))
    expected = gamma_tail(shape, x, False), gamma_tail(shape, x, True)
    smaller = int(expected[1] < expected[0])
    for pair in (found, elsewhere):
        assert float(pair[smaller]) == pytest.approx(expected[smaller], rel=1e-11)
        assert float(pair[1 - smaller]) == pytest.approx(expected[1 - smaller], rel=1e-11)


@pytest.mark.parametrize("mean", [0.01, 3.0, 1e3, 1e7, 1e10])
@pytest.mark.parametrize("sigmas", SIGMAS)
def test_counts(mean: float, sigmas: float) -> None:
    count = float(max(round(mean + sigmas * mean**0.5), 0))
    log_mean = t(mean).log()
    rate = float(log_mean.exp())
    above, below = gamma_tail(count + 1, rate, False), gamma_tail(count + 1, rate, True)
    poisson = LogPoisson(log_mean)
    assert float(survival(poisson, t(count))) == pytest.approx(above, rel=1e-9)
    assert float(cdf(poisson, t(count))) == pytest.approx(below, rel=1e-9)
    assert reference.poisson_tail(int(count) + 1, rate) == pytest.approx(above, rel=1e-9)
    inflated = ZeroInflated(poisson, t(-1.0))
    assert float(survival(inflated, t(count))) == pytest.approx(float(t(1.0).sigmoid()) * above, rel=1e-9)
    level = float(cdf(poisson, t(count)))
    if 1e-12 < level < 1 - 1e-6:
        # What lies halfway between two steps of the cdf belongs to the upper one.
        middle = 0.5 * (level + float(cdf(poisson, t(count - 1)))) if count else 0.5 * level
        assert float(quantile(poisson, middle)) == count


@pytest.mark.parametrize("shape", [0.5, 30.0, 1e5, 1e7, 1e10])
@pytest.mark.parametrize("level", [1e-9, 0.025, 0.5, 0.9])
def test_gamma_quantiles(shape: float, level: float) -> None:
    x = float(quantile(Gamma(t(0.0), t(1 / shape)), level)) * shape
    # A quantile of 16 digits is known to 1e-16 of itself, and the level to as much times √shape.
    assert gamma_tail(shape, x, False) == pytest.approx(level, rel=1e-11 + 1e-14 * shape**0.5)


@pytest.mark.parametrize("df", [1.5, 30.0, 1e4, 1e8, 1e10, 1e12])
@pytest.mark.parametrize("u", [0.01, 1.0, 6.0])
def test_students_t(df: float, u: float) -> None:
    with mp.workdps(45):
        other, x = 1 / (1 + mp.mpf(df) / mp.mpf(u) ** 2), 1 / (1 + mp.mpf(u) ** 2 / mp.mpf(df))
        if df < 1e3:
            upper = float(mp.betainc(mp.mpf(df) / 2, 0.5, 0, x, regularized=True) / 2)
        else:
            upper = beta_tail(df / 2, 0.5, x, other) / 2
    distribution = StudentT(t(df), t(0.0), t(1.0))
    assert float(survival(distribution, t(u))) == pytest.approx(upper, rel=1e-10)
    assert float(cdf(distribution, t(-u))) == pytest.approx(upper, rel=1e-10)
    assert reference.t_tail(u, df) == pytest.approx(upper, rel=1e-10)
    assert float(quantile(distribution, upper)) == pytest.approx(-u, rel=1e-10)
    half = t(0.5)
    own = special.beta_tails(t(df / 2), half, t(float(x)), t(float(other)))[0]
    assert float(own) / 2 == pytest.approx(upper, rel=1e-9)
    logit = special._search(lambda s: special.beta_tails(t(df / 2), half, s.sigmoid(), (-s).sigmoid())[0], t(2 * upper))
    assert float((df * (-logit).exp()).sqrt()) == pytest.approx(u, rel=1e-8)


@pytest.mark.parametrize("size", [0.5, 20.0, 1e6, 1e9])
@pytest.mark.parametrize("mean", [3.0, 1e4, 1e8])
def test_negative_binomial(size: float, mean: float) -> None:
    distribution = NegativeBinomial(t(mean).log(), -t(size).log())
    spread = float(distribution.variance) ** 0.5
    for sigmas in (-1.0, 2.0):
        count = float(max(round(mean + sigmas * spread), 0))
        with mp.workdps(45):
            mu, r = mp.exp(mp.mpf(float(t(mean).log()))), mp.exp(mp.mpf(float(t(size).log())))
            fail, success = r / (r + mu), mu / (r + mu)
            rises = r * success > (mp.mpf(count) + 1) * fail
            lower = beta_tail(r, count + 1, fail, success) if rises else 1 - beta_tail(count + 1, r, success, fail)
        assert float(cdf(distribution, t(count))) == pytest.approx(lower, rel=1e-8)


@pytest.mark.parametrize("precision", [1.0, 1e3, 1e8])
@pytest.mark.parametrize("level", [1e-8, 0.1, 0.5])
def test_shares(precision: float, level: float) -> None:
    distribution = Beta(t(-1.0), t(precision))
    x = float(quantile(distribution, level))
    a, b = float(distribution.concentration1), float(distribution.concentration0)
    with mp.workdps(45):
        lower = beta_tail(a, b, mp.mpf(x), 1 - mp.mpf(x))
    assert lower == pytest.approx(level, rel=1e-7 if level < 0.5 else 1e-9)
    assert float(cdf(distribution, t(x))) == pytest.approx(lower, rel=1e-9)


@pytest.mark.parametrize("distribution", [Exponential(t(2.0)), Weibull(t(2.0), t(1.7))])
def test_lifetimes(distribution: Distribution) -> None:
    shape = 1.7 if isinstance(distribution, Weibull) else 1.0
    for y in (1e-9, 0.1, 7.0, 150.0):
        with mp.workdps(40):
            hazard = (mp.mpf(y) / mp.exp(2)) ** mp.mpf(shape)
            expected = float(-mp.expm1(-hazard)), float(mp.exp(-hazard))
        assert float(cdf(distribution, t(y))) == pytest.approx(expected[0], rel=1e-12)
        assert float(survival(distribution, t(y))) == pytest.approx(expected[1], rel=1e-12)
        if expected[0] < 0.999:
            assert float(quantile(distribution, expected[0])) == pytest.approx(y, rel=1e-9)


@pytest.mark.parametrize("df", [1, 30, 100_000, 10_000_000])
def test_chi2(df: int) -> None:
    for sigmas in (-3.0, 0.0, 4.0):
        x = max(df + sigmas * (2 * df) ** 0.5, 0.1)
        assert reference.chi2_tail(x, df) == pytest.approx(gamma_tail(df / 2, x / 2, True), rel=1e-10)
    assert gamma_tail(df / 2, reference.chi2_quantile(0.95, df) / 2, True) == pytest.approx(0.05, rel=1e-9)
