"""Expected information by sums and integrals, against closed forms and other programs."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
import torch
from exact_oracles import data, sample
from exact_solving import configured, problem_with
from scipy.special import polygamma
from torch import Tensor
from torch.distributions import Distribution, constraints

from mlefw import inverse_link
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.expected import expected_information
from mlefw.baseline.newton import Newton
from mlefw.baseline.row_information import Table, row_information
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.beta import BetaHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.censored import CensoredHead
from mlefw.head.exponential import ExponentialHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.mixture import MixtureHead
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.ordinal import OrdinalHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.student_t import StudentTHead
from mlefw.head.weibull import WeibullHead

CLOSED: list[Callable[[], Head]] = [
    *(GaussianHead, LognormalHead, GammaHead, ExponentialHead, WeibullHead, StudentTHead, PoissonHead),
    *(lambda: BetaHead(precision="predicted"), lambda: CategoricalHead(3), lambda: OrdinalHead(4)),
]


def etas(columns: int) -> Tensor:
    return torch.linspace(-0.5, 2.0, 5 * columns, dtype=torch.float64).view(5, columns)


def without_closed_form(head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The head, which states no information any more."""
    monkeypatch.setattr(head, "information", lambda eta: None)
    return head.double()


@pytest.mark.parametrize("make", CLOSED, ids=lambda make: type(make()).__name__)
def test_a_closed_form_is_found_again(make: Callable[[], Head], monkeypatch: pytest.MonkeyPatch) -> None:
    head = make()
    # A share within 1e-10 of one has few digits, so that of beta the precision is not small.
    eta = etas(head.eta_dim + head.shared_dim) + (2.0 if isinstance(head, BetaHead) else 0.0)
    known = head.information(eta)
    assert known is not None
    found = expected_information(without_closed_form(head, monkeypatch), eta)
    torch.testing.assert_close(found, known, rtol=1e-7, atol=1e-8)


def test_huber_of_the_middle() -> None:
    """E ψ² under the model for δ = 1.345 is the share of rows in the middle, 0.77380493."""
    eta = torch.tensor([[0.7, math.log(2.0)]], dtype=torch.float64)
    assert float(expected_information(HuberHead(), eta)[0, 0, 0]) == pytest.approx(0.77380493 / 4, rel=1e-4)


@pytest.mark.parametrize(
    ("log_mean", "log_dispersion"), [(0.5, 1.5), (4.0, -1.0), (9.0, -1.0), (15.0, 1.5), (15.0, -9.0)]
)
def test_counts_of_any_size(log_mean: float, log_dispersion: float) -> None:
    eta = torch.tensor([[log_mean, log_dispersion]], dtype=torch.float64)
    mean, dispersion = math.exp(log_mean), math.exp(log_dispersion)
    found = expected_information(NegativeBinomialHead(), eta)[0]
    assert float(found[0, 0]) == pytest.approx(mean / (1 + dispersion * mean), rel=1e-6)
    assert float(found[0, 1].abs()) <= 1e-5 * float(found.diagonal().prod().sqrt())


def test_zero_inflated_counts_by_the_curvature_of_a_divergence() -> None:
    """The Hessian of Σ p log(p / q) in the parameters of q, at q = p, by finite differences of scipy's masses."""
    head = configured("zero_inflated_poisson")
    at = np.array([0.8, -0.4])
    y = np.arange(60)

    def mass(eta: np.ndarray) -> np.ndarray:
        values = dict(zip(head.eta_names + head.shared_names, eta, strict=True))
        share = 1 / (1 + math.exp(-values["inflation"]))
        return share * (y == 0) + (1 - share) * scipy.stats.poisson.pmf(y, math.exp(values["rate"]))

    def divergence(a: float, b: float) -> float:
        return float(-mass(at) @ np.log(mass(at + np.array([a, b]))))

    h = 1e-3
    expected = np.empty((2, 2))
    for i, j in ((0, 0), (0, 1), (1, 1)):
        first, second = np.eye(2)[i] * h, np.eye(2)[j] * h
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        expected[i, j] = expected[j, i] = sum(a * b * divergence(*(a * first + b * second)) for a, b in signs) / (
            4 * h * h
        )
    found = expected_information(head.double(), torch.tensor(at).unsqueeze(0))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Amount(Distribution):
    """Zero with probability 1 − share, else exponential with this mean."""

    support = constraints.nonnegative

    def __init__(self, share: Tensor, mean: Tensor) -> None:
        self.share, self.level = share, mean
        super().__init__(mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.share * self.level

    def log_prob(self, value: Tensor) -> Tensor:
        above = self.share.log() - self.level.log() - value / self.level
        return torch.where(value > 0, above, torch.log1p(-self.share))

    def cdf(self, value: Tensor) -> Tensor:
        return 1 - self.share * torch.exp(-value / self.level)

    def icdf(self, value: Tensor) -> Tensor:
        return -self.level * ((1 - value) / self.share).clamp(max=1).log()


class AmountHead(FactorizedHead):
    """Amounts that may be zero."""

    inverse_links: ClassVar = {"share": inverse_link.sigmoid, "mean": inverse_link.exp}
    support = constraints.nonnegative

    def __init__(self) -> None:
        super().__init__(share="predicted", mean="predicted")

    def build(self, share: Tensor, mean: Tensor) -> Amount:  # type: ignore[override]
        return Amount(share, mean)


def test_an_atom_at_zero() -> None:
    eta = etas(2)
    share = eta[:, 0].sigmoid()
    expected = torch.diag_embed(torch.stack([share * (1 - share), share], 1))
    torch.testing.assert_close(expected_information(AmountHead(), eta), expected, rtol=1e-7, atol=1e-9)


def test_what_has_no_accurate_expectation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotImplementedError, match="LaplaceHead was not found to three digits"):
        expected_information(without_closed_form(LaplaceHead(), monkeypatch), etas(2))
    with pytest.raises(NotImplementedError, match="censored numbers have no expected information"):
        expected_information(CensoredHead(GaussianHead()), etas(2))


def test_a_mixture_has_expected_errors() -> None:
    """Of two components far apart that of their weights is p (1 − p)."""
    head = MixtureHead(GaussianHead(), 2).double()
    names = list(head.eta_names)
    eta = torch.zeros(1, head.eta_dim + head.shared_dim, dtype=torch.float64)
    places = [k for k, name in enumerate(names) if "loc" in name]
    eta[0, places[0]], eta[0, places[1]] = -40.0, 40.0
    found = expected_information(head, eta)[0].diagonal()
    assert float(found[places[0]]) == pytest.approx(0.5, rel=1e-6)


def test_negative_binomial_errors_are_those_of_glm_nb() -> None:
    """Expected information of the mean at the dispersion, and R's standard error of θ, on the scale of 1 / θ."""
    of = data("randhie")
    of = sample(of.x[::40, :2], of.y[::40])
    problem = problem_with(NegativeBinomialHead(), of)
    solution = replace(Newton(100).solve_from(problem, torch.zeros(problem.size, dtype=torch.float64)), exists=True)
    assert solution.converged
    found = covariance(solution, "expected")
    assert isinstance(found, Covariance)
    log_alpha = problem.head.center[1] + problem.head.gain[1] * solution.theta[-1]
    fit = sm.GLM(of.y, sm.add_constant(of.x), sm.families.NegativeBinomial(alpha=math.exp(log_alpha))).fit(tol=1e-14)
    error = found.matrix.diagonal().sqrt().numpy()
    np.testing.assert_allclose(error[:2], fit.bse[1:] * of.x.std(0), rtol=1e-6)
    size, y, mean = math.exp(-log_alpha), of.y, fit.mu
    terms = polygamma(1, size) - polygamma(1, size + y) - 1 / size + 2 / (mean + size) - (y + size) / (mean + size) ** 2
    of_size = terms.sum() ** -0.5
    np.testing.assert_allclose(error[-1] * abs(float(problem.head.gain[1])), of_size / size, rtol=1e-6)


@pytest.mark.parametrize("inflation", ["shared", "predicted"])
def test_many_rows_are_read_from_a_table(inflation: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2)) * 0.4
    of = sample(x, rng.poisson(np.exp(1 + x[:, 0])) * (rng.random(4000) > 0.3))
    problem = problem_with(configured("zero_inflated_poisson", inflation=inflation), of)
    theta = torch.linspace(-0.3, 0.4, problem.size, dtype=torch.float64)
    eta = torch.cat([eta for _, _, eta in problem.etas(theta)])
    of_rows = row_information(problem, theta, "expected")
    found = of_rows(problem.rows, eta)
    part = slice(0, None, 97)
    torch.testing.assert_close(found[part], expected_information(problem.head, eta[part]), rtol=1e-6, atol=1e-9)


def test_a_table_is_exact_at_and_between_its_nodes() -> None:
    low, high = torch.tensor([-1.0, 2.0, 0.0]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    function: Callable[[Tensor], Tensor] = lambda eta: (eta[:, :1] * eta[:, 2:]).exp() + eta[:, 1:2]  # noqa: E731
    table = Table.of(function, low, high, torch.tensor([0, 2]), 33)
    eta = low + (high - low) * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double()
    eta[0], eta[1] = low, high
    torch.testing.assert_close(table(eta), function(eta), rtol=1e-12, atol=1e-12)
