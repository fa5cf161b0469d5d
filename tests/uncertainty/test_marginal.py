"""Predictive distributions over an uncertain eta, against numerical integration and Monte Carlo."""

import mpmath
import numpy as np
import pytest
import torch
from linear_runs import at_estimate, rows_of
from scipy import integrate, stats
from torch.distributions import Gamma, Normal, constraints

from mlefw import inverse_link
from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, survival
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.uncertainty.laplace import Laplace, output_curvature
from mlefw.uncertainty.marginal import marginal
from mlefw.uncertainty.normal_laplace import NormalLaplace

PROBES = np.array([-30.0, -6.0, -1.5, -0.2, 0.0, 0.7, 3.0, 12.0])


def of_one(head: Head, eta: list[float], covariance: list[list[float]]) -> torch.distributions.Distribution:
    as_row = {"dtype": torch.float64}
    return marginal(head, torch.tensor([eta], **as_row), torch.tensor([covariance], **as_row))


def over_normal(function: object, mean: float, sd: float) -> float:
    """∫ function(eta) Normal(eta; mean, sd)."""
    value, _ = integrate.quad(
        lambda z: function(mean + sd * z) * stats.norm.pdf(z), -12, 12, epsabs=0, epsrel=1e-11, limit=400
    )
    return value


@pytest.mark.parametrize("sd", [0.0, 0.1, 1.0, 4.0])
@pytest.mark.parametrize("logit", [-20.0, -3.0, 0.5, 8.0])
def test_bernoulli(logit: float, sd: float) -> None:
    p = of_one(BernoulliHead(), [logit], [[sd**2]])
    one = over_normal(lambda t: 1 / (1 + np.exp(-t)), logit, sd)
    zero = over_normal(lambda t: 1 / (1 + np.exp(t)), logit, sd)
    log_prob = p.log_prob(torch.tensor([[1.0], [0.0]]).double())
    np.testing.assert_allclose(log_prob.flatten().exp(), [one, zero], rtol=1e-5 if sd > 1 else 1e-9)


@pytest.mark.parametrize("sd", [0.05, 0.5, 1.5])
def test_poisson(sd: float) -> None:
    counts = np.array([0, 1, 4, 9, 30])
    p = of_one(PoissonHead(), [1.2], [[sd**2]])
    z = np.linspace(-10, 10, 8001)
    rate = np.exp(1.2 + sd * z)
    mass = stats.norm.pdf(z) * (z[1] - z[0]) @ stats.poisson.pmf(np.arange(60), rate[:, None])
    np.testing.assert_allclose(p.log_prob(torch.tensor(counts).double()).exp(), mass[counts], rtol=1e-9)
    assert float(p.mean) == pytest.approx(np.exp(1.2 + sd**2 / 2), rel=1e-9)
    assert float(p.variance) == pytest.approx(np.exp(1.2 + sd**2 / 2) + np.exp(2.4 + sd**2) * np.expm1(sd**2), rel=1e-6)
    for level in (0.05, 0.5, 0.95):
        assert int(quantile.quantile(p, level)) == np.searchsorted(np.cumsum(mass), level)


@pytest.mark.parametrize(("sd", "scale"), [(1e-7, 2.0), (0.3, 1.0), (1.0, 1.0), (5.0, 0.2), (2.0, 30.0)])
def test_normal_plus_laplace(sd: float, scale: float) -> None:
    loc = 1.5
    p = NormalLaplace(*(torch.tensor(value, dtype=torch.float64) for value in (loc, sd, scale)))
    at = loc + PROBES * max(sd, scale)
    with mpmath.workdps(40):
        density, below = zip(*(_normal_laplace(mpmath.mpf(v) - mpmath.mpf(loc), sd, scale) for v in at), strict=True)
    y = torch.tensor(at)
    np.testing.assert_allclose(p.log_prob(y), np.array(density, float), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(p.cdf(y), np.array(below, float), rtol=1e-9)
    assert float(p.variance) == pytest.approx(sd**2 + 2 * scale**2, rel=1e-12)
    for level in (1e-9, 0.01, 0.5, 0.9):
        assert float(p.cdf(quantile.quantile(p, level))) == pytest.approx(level, rel=1e-9)


def _normal_laplace(t: mpmath.mpf, sd: float, scale: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Log-density and cdf by Reed's (2006) closed form in forty digits."""
    s, b = mpmath.mpf(sd), mpmath.mpf(scale)
    up = mpmath.exp(s**2 / (2 * b**2) + t / b) * mpmath.ncdf(-t / s - s / b)
    down = mpmath.exp(s**2 / (2 * b**2) - t / b) * mpmath.ncdf(t / s - s / b)
    return mpmath.log((up + down) / (2 * b)), mpmath.ncdf(t / s) + (up - down) / 2


def test_reeds_closed_form_is_the_convolution() -> None:
    for t in (-3.0, 0.4):
        value = over_normal(lambda m, t=t: stats.laplace.pdf(t, m, 0.7), 0.0, 0.9)
        assert float(mpmath.exp(_normal_laplace(mpmath.mpf(t), 0.9, 0.7)[0])) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("covariance", [[[0.5, 0.0], [0.0, 0.01]], [[2.0, -0.4], [-0.4, 0.3]]])
def test_location_and_scale(kind: type, covariance: list[list[float]]) -> None:
    head = kind(scale="predicted")
    loc, log_scale = 3.0, 0.2
    p = of_one(head, [loc, log_scale], covariance)
    family = stats.norm if kind is GaussianHead else stats.laplace
    root = np.linalg.cholesky(covariance)
    z = np.linspace(-9, 9, 1001)
    w = stats.norm.pdf(z) * (z[1] - z[0])
    first, second = np.meshgrid(z, z, indexing="ij")
    weight = np.outer(w, w)
    at_loc, at_scale = loc + root[0, 0] * first, np.exp(log_scale + root[1, 0] * first + root[1, 1] * second)
    for y in (-4.0, 2.9, 7.0):
        below = (weight * family.cdf(y, at_loc, at_scale)).sum()
        assert float(cdf(p, torch.tensor([y], dtype=torch.float64))) == pytest.approx(below, rel=1e-5)
        if kind is GaussianHead:
            density = (weight * family.pdf(y, at_loc, at_scale)).sum()
            assert float(p.log_prob(torch.tensor([y], dtype=torch.float64)).exp()) == pytest.approx(density, rel=1e-8)
    noise = np.exp(2 * log_scale + 2 * covariance[1][1]) * (1 if kind is GaussianHead else 2)
    assert float(p.mean) == pytest.approx(loc, rel=1e-12)
    assert float(p.variance) == pytest.approx(covariance[0][0] + noise, rel=1e-9)


def test_classes_by_monte_carlo() -> None:
    random = np.random.default_rng(0)
    factor = random.normal(size=(4, 4))
    covariance, eta = factor @ factor.T, np.array([1.0, -0.5, 0.0, 2.0])
    p = of_one(CategoricalHead(4), eta.tolist(), covariance.tolist()).probs[0]
    draws = np.exp(eta + random.normal(size=(400_000, 4)) @ factor.T)
    probs = draws / draws.sum(1, keepdims=True)
    error = probs.std(0) / np.sqrt(len(probs))
    assert (np.abs(p.numpy() - probs.mean(0)) < 4 * error + 1e-3).all()
    assert float(p.sum()) == pytest.approx(1, rel=1e-12)


def test_two_classes_are_a_bernoulli() -> None:
    """The difference of two logits has variance a + c − 2 b."""
    p = of_one(CategoricalHead(2), [0.3, 1.4], [[1.0, 0.2], [0.2, 2.0]]).probs[0, 1]
    expected = over_normal(lambda t: 1 / (1 + np.exp(-t)), 1.1, np.sqrt(2.6))
    assert float(p) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    "head", [BernoulliHead(), PoissonHead(), CategoricalHead(3), GaussianHead("predicted"), LaplaceHead("predicted")]
)
def test_certain_parameters_change_nothing(head: Head) -> None:
    eta = torch.tensor([[0.3, -0.8, 0.5], [2.0, 0.1, -1.0]], dtype=torch.float64)[:, : head.eta_dim]
    y = torch.tensor([1.0, 0.0]).double()
    p = marginal(head, eta, torch.zeros(2, head.eta_dim, head.eta_dim, dtype=torch.float64))
    torch.testing.assert_close(p.log_prob(y), head(eta).log_prob(y), rtol=1e-7, atol=1e-12)


def test_a_row_does_not_depend_on_the_others() -> None:
    factor = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eta, covariance = torch.zeros(5, 3, dtype=torch.float64), factor @ factor.mT
    whole = marginal(CategoricalHead(3), eta, covariance).probs
    torch.testing.assert_close(marginal(CategoricalHead(3), eta[3:4], covariance[3:4]).probs, whole[3:4])


class GammaHead(FactorizedHead):
    """A head that states no information and that nothing here knows."""

    inverse_links = {"concentration": inverse_link.exp, "rate": inverse_link.exp}  # noqa: RUF012
    support = constraints.positive

    def __init__(self) -> None:
        super().__init__(concentration="predicted", rate="predicted")

    def build(self, concentration: torch.Tensor, rate: torch.Tensor) -> Gamma:  # type: ignore[override]
        return Gamma(concentration, rate, validate_args=False)


def test_any_other_head_is_a_mixture() -> None:
    covariance = np.array([[0.2, 0.1], [0.1, 0.3]])
    p = of_one(GammaHead(), [0.5, -0.2], covariance.tolist())
    z, w = np.polynomial.hermite_e.hermegauss(60)
    first, second = np.meshgrid(z, z, indexing="ij")
    weight, root = np.outer(w, w) / (2 * np.pi), np.linalg.cholesky(covariance)
    shape = np.exp(0.5 + root[0, 0] * first)
    rate = np.exp(-0.2 + root[1, 0] * first + root[1, 1] * second)
    for y in (0.3, 2.0, 6.0):
        below = (weight * stats.gamma.cdf(y, shape, scale=1 / rate)).sum()
        assert float(cdf(p, torch.tensor([y], dtype=torch.float64))) == pytest.approx(below, abs=1e-3)
    eta, y = torch.tensor([[0.5, -0.2], [2.0, 1.0]]).double(), torch.tensor([9.0, 0.1]).double()
    assert (torch.linalg.eigvalsh(output_curvature(GammaHead(), eta, y)) > -1e-12).all()


def test_a_given_scale_adds_variances() -> None:
    p = of_one(GaussianHead(scale=2.0), [1.0], [[5.0]])
    assert isinstance(p, Normal)
    assert float(p.stddev) == pytest.approx(3.0, rel=1e-12)
    q = of_one(LaplaceHead(scale=2.0), [1.0], [[5.0]])
    assert float(q.stddev) == pytest.approx(np.sqrt(13), rel=1e-12)


def test_a_rate_that_nothing_bounds_is_refused() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    objective = at_estimate(PoissonHead(), rows_of(x, np.array([0.0, 1.0, 1.0, 3.0])))
    posterior = Laplace().fit(objective, rows_of(x, np.array([0.0, 1.0, 1.0, 3.0])))
    with pytest.raises(UsageError, match=r"of 1 of 2 rows the rate is not known"):
        posterior.predictive(objective, rows_of(np.array([[1.0], [300.0]]), np.zeros(2)))


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("log_scale_sd", [0.01, 0.5, 4.0])
def test_quantiles_of_a_mixture_over_scales(kind: type, log_scale_sd: float) -> None:
    p = of_one(kind(scale="predicted"), [2.0, -1.0], [[0.5, 0.1 * log_scale_sd], [0.1 * log_scale_sd, log_scale_sd**2]])
    for level in (1e-6, 0.05, 0.3, 0.95, 1 - 1e-6):
        q = quantile.quantile(p, level)
        assert float(cdf(p, q)) == pytest.approx(level, rel=1e-9)
        assert float(survival(p, q)) == pytest.approx(1 - level, rel=1e-8)
