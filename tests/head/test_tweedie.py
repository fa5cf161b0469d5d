"""Tweedie and inverse Gaussian heads: published values, exact fits, and where there is no maximum."""

from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm
import torch
from scipy.optimize import minimize

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.distribution.cdf import cdf, survival
from mlefw.distribution.quantile import pit_bounds, quantile
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.inverse_gaussian import InverseGaussian
from mlefw.head.tweedie import Tweedie, TweedieHead
from mlefw.loss.crps import has_derivative
from mlefw.metric.pit import Pit
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics

NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))

PUBLISHED = [
    ((1.3, 2, 1, 1.5), -1.3157871817774547965),
    ((0.01, 1, 0.5, 1.2), -8.0806387745324799),
    ((25, 10, 3, 1.7), -4.7456903327783606),
    ((1000, 1000, 2, 1.05), -4.8923246752854086),
    ((4, 3, 0.01, 1.5), -7.9469201198163160),
    ((0, 2, 1, 1.5), -2.8284271247461901),
]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tweedie(mean: float, dispersion: float, power: float) -> Tweedie:
    return Tweedie(tensor(mean).log(), tensor(dispersion), tensor(power))


def series(y: float, mean: float, dispersion: float, power: float) -> Any:
    """The log-density by the sum over the number of gamma variables, as it is defined."""
    y, mean, dispersion, power = map(mpmath.mpf, (y, mean, dispersion, power))
    alpha = (2 - power) / (power - 1)
    rate, scale = mean ** (2 - power) / (dispersion * (2 - power)), dispersion * (power - 1) * mean ** (power - 1)
    peak = y ** (2 - power) / (dispersion * (2 - power))
    first, last = max(1, int(peak - 14 * mpmath.sqrt(peak) - 5)), int(peak + 14 * mpmath.sqrt(peak) + 60)
    terms = (
        j * mpmath.log(rate) - mpmath.loggamma(j + 1) - mpmath.loggamma(j * alpha) + j * alpha * mpmath.log(y / scale)
        for j in range(first, last)
    )
    return mpmath.log(mpmath.fsum(mpmath.exp(term) for term in terms)) - rate - y / scale - mpmath.log(y)


@pytest.mark.parametrize(("of", "expected"), PUBLISHED)
def test_published_log_densities(of: tuple[float, float, float, float], expected: float) -> None:
    assert float(tweedie(*of[1:]).log_prob(tensor(of[0]))) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("of", [(0.3, 1, 2, 1.01), (7, 3, 0.4, 1.99), (2, 2.1, 1e-3, 1.3), (1e-4, 1, 30, 1.8)])
def test_log_densities_by_definition(of: tuple[float, float, float, float]) -> None:
    with mpmath.workdps(40):
        expected = float(series(*of))
    assert float(tweedie(*of[1:]).log_prob(tensor(of[0]))) == pytest.approx(expected, rel=1e-12)


def test_a_published_inverse_gaussian_log_density() -> None:
    found = InverseGaussian(tensor(2.0).log(), tensor(0.3)).log_prob(tensor(1.7))
    assert float(found) == pytest.approx(-1.134953331164372104522, rel=1e-15)


def test_tails_quantiles_and_draws_beside_a_probability_of_zero() -> None:
    torch.manual_seed(0)
    of = Tweedie(*(tensor(v).expand(40_000) for v in (0.2, 0.9, 1.6)))
    zero, y = float(torch.exp(-of.rate[0])), of.sample()
    one = Tweedie(of.log_mean[:1], of.dispersion[:1], of.power[:1])
    assert float((y == 0).double().mean()) == pytest.approx(zero, abs=0.01)
    assert [float(y.mean()), float(y.var())] == pytest.approx([float(one.mean), float(one.variance)], rel=0.03)
    for at in (0.0, 0.4, 3.0):
        assert float(cdf(one, tensor(at))) == pytest.approx(float((y <= at).double().mean()), abs=0.01)
        assert float(cdf(one, tensor(at)) + survival(one, tensor(at))) == pytest.approx(1.0, abs=1e-12)
    assert float(quantile(one, 0.9 * zero)) == 0.0
    for level in (zero + 1e-9, 0.7, 0.999):
        assert float(cdf(one, quantile(one, level))) == pytest.approx(level, abs=1e-11)
    assert [float(v) for v in pit_bounds(one, tensor(0.0))] == pytest.approx([0.0, zero])
    pit = Pit()
    pit.update(of, y, torch.ones_like(y))
    assert float(pit.compute()["pit_rmse"]) < 0.003


def fitted(head: Head, x: np.ndarray, y: np.ndarray) -> Solution:
    """The exact estimate, from the units of the target rather than from the null model, for which no time is spent."""
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.tensor(x), torch.tensor(y), ones, 0 * ones)
    head.double().set_units(*target_statistics(rows))
    return LinearBaseline().solve(Problem.of(head, rows, *feature_statistics(rows, True), NoPrior()))


def rain(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 1))
    mean = np.exp(0.3 + 0.4 * x[:, 0])
    count = random.poisson(mean**0.4 / (0.8 * 0.4))
    return x, np.where(count > 0, random.gamma(np.maximum(count, 1e-9) * 0.4 / 0.6, 0.8 * 0.6 * mean**0.6), 0.0)


def test_the_mean_is_that_of_a_generalised_linear_model() -> None:
    x, y = rain()
    solution = fitted(TweedieHead(power=1.6), x, y)
    family = sm.families.Tweedie(sm.families.links.Log(), 1.6)
    model = sm.GLM(y, sm.add_constant(x), family).fit(tol=1e-14)
    head, theta = solution.problem.head, solution.theta
    slope = float(theta[0]) / float(solution.problem.scale[0])
    assert solution.exists
    assert solution.is_global
    assert slope == pytest.approx(model.params[1], rel=1e-8)
    means = torch.cat([head.distribution(eta).mean for _, _, eta in solution.problem.etas(theta)])
    np.testing.assert_allclose(means, model.fittedvalues, rtol=1e-8)


def numbers(y: np.ndarray, mean: np.ndarray, dispersion: float, power: float) -> np.ndarray:
    """The log-densities by the first 400 numbers of gamma variables."""
    alpha, j = (2 - power) / (power - 1), np.arange(1, 400)[:, None]
    rate, scale = mean ** (2 - power) / (dispersion * (2 - power)), dispersion * (power - 1) * mean ** (power - 1)
    some = np.where(y > 0, y, 1.0)
    terms = scipy.stats.poisson(rate).logpmf(j) + scipy.stats.gamma(j * alpha, scale=scale).logpdf(some)
    return np.where(y > 0, scipy.special.logsumexp(terms, axis=0), -rate)


def test_a_learnt_power_by_a_search() -> None:
    x, y = rain(25)
    solution = fitted(TweedieHead(power="shared"), x, y)

    def nll(theta: np.ndarray) -> float:
        power = 1 + 1 / (1 + np.exp(-theta[3]))
        return -float(numbers(y, np.exp(theta[0] + theta[1] * x[:, 0]), np.exp(theta[2]), power).sum())

    best = minimize(nll, [0.3, 0.4, -0.2, 0.4], method="BFGS", options={"gtol": 1e-6})
    shared = solution.problem.head.center + solution.problem.head.gain * torch.cat(
        solution.problem.split(solution.theta)[1:]
    )
    assert solution.converged
    assert solution.objective * 25 == pytest.approx(best.fun, abs=1e-8)
    assert 1.01 + 0.98 * float(shared[2].sigmoid()) == pytest.approx(1 + 1 / (1 + np.exp(-best.x[3])), abs=1e-4)
    assert float(solution.theta[0]) / float(solution.problem.scale[0]) == pytest.approx(best.x[1], abs=1e-4)


def test_where_there_is_no_maximum() -> None:
    x, y = rain(20)
    random = np.random.default_rng(1)
    counts = fitted(TweedieHead(power="shared"), x[:, :0], random.poisson(2.0, 20).astype(float))
    assert counts.exists is False
    assert "1.01: amounts lie on a lattice" in str(counts.reason)
    dry = (np.arange(20) % 2).astype(float)
    separated = fitted(TweedieHead(), dry[:, None], np.where(dry == 1, 0.0, y + 0.1))
    assert separated.exists is False
    assert "10 of 20 rows become certain" in str(separated.reason)
    line = np.where(dry == 1, 0.0, np.exp(0.3 + 0.5 * x[:, 0]))
    perfect = fitted(TweedieHead(), np.c_[dry, x], line)
    assert perfect.exists is False
    assert "fits every positive row exactly" in str(perfect.reason)


@pytest.mark.parametrize("of", [(2, 1, 1.5), (0.3, 2, 1.2), (10, 0.01, 1.5), (3, 0.5, 1.02), (1, 1, 1.95)])
def test_the_crps_is_the_integral_of_its_definition(of: tuple[float, float, float]) -> None:
    one, mean = tweedie(*of), float(of[0])
    for y in (0.0, 0.1 * mean, mean, 4 * mean):
        score = 0.0
        for start, end, above in ((0.0, y, False), (y, max(y, mean + 60 * float(one.stddev)), True)):
            # Where F has a power of y near zero, panels shrink with the distance from zero.
            near = torch.logspace(-12, 0, 25, dtype=torch.float64)
            edges = torch.cat([near, torch.linspace(0, 1, 61, dtype=torch.float64)]).unique()
            half = edges.diff() / 2 * (end - start)
            v = start + (end - start) * edges[:-1, None] + half[:, None] * (1 + NODES)
            side = survival(one, v.reshape(-1, 1)) if above else cdf(one, v.reshape(-1, 1))
            score += float((half[:, None] * WEIGHTS * side.reshape(v.shape).square()).sum())
        assert float(one.crps(tensor(y))) == pytest.approx(score, abs=1e-9 * mean)


def test_the_crps_of_a_learnt_power_has_a_derivative() -> None:
    head = TweedieHead(power="shared").double()
    head.set_units(2.0, 3.0)
    assert has_derivative(head)


@pytest.mark.parametrize("power", [1.0, 2.0, 1.001])
def test_a_power_out_of_its_range_is_refused(power: float) -> None:
    with pytest.raises(UsageError, match=r"head\.power=.*expected a number from 1\.01 to 1\.99"):
        TweedieHead(power=power)
