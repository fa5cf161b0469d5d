"""Mixtures of components of one kind: density and quantiles from plain sums, the exact side against scikit-learn."""

import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch.distributions import constraints

from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.configuration.read import read_settings
from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf as cumulative
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.mixture import MixtureHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.student_t import StudentTHead
from mlefw.metric.crps import crps
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics

POINTS = [
    # loc_1, scale_1, loc_2, scale_2 on their eta, the log-odds of the second, y
    ([0.3, 0.2, -1.0, -0.5, 0.7], 1.1),
    ([-2.0, -1.5, 3.0, 0.3, -3.0], 0.5),
    ([0.0, 0.0, 0.0, 2.0, 1.0], 40.0),
    ([0.0, -40.0, 0.0, 0.0, -700.0], 0.0),
    ([0.0, -3.0, 1e6, 0.0, 300.0], -20.0),
]


def made(component: Head | None = None, count: int = 2, weights: str = "predicted") -> MixtureHead:
    return MixtureHead(component or GaussianHead("predicted"), count, weights).double()  # type: ignore[arg-type]


def bare(component: Head | None = None, count: int = 2) -> MixtureHead:
    """Without the units that keep the components apart."""
    head = made(component, count)
    head.center.zero_()
    return head


def definition(eta: list[float], y: float) -> float:
    with mpmath.workdps(700):
        first = 1 / (1 + mpmath.exp(eta[4]))
        parts = [
            share * mpmath.npdf(y, loc, mpmath.exp(scale))
            for share, loc, scale in ((first, eta[0], eta[1]), (1 - first, eta[2], eta[3]))
        ]
        return float(-mpmath.log(mpmath.fsum(parts)))


@pytest.mark.parametrize(("eta", "y"), POINTS)
def test_density_against_the_definition(eta: list[float], y: float) -> None:
    got = bare().nll(torch.tensor([eta], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))
    assert float(got) == pytest.approx(definition(eta, y), rel=1e-12)


def test_quantiles_pit_and_crps_of_two_modes() -> None:
    eta = torch.tensor([POINTS[1][0]], dtype=torch.float64)
    distribution = bare()(eta)
    share = scipy.special.expit(-3.0)
    parts = ((1 - share, scipy.stats.norm(-2, math.exp(-1.5))), (share, scipy.stats.norm(3, math.exp(0.3))))

    def cdf(value: float) -> float:
        return sum(weight * part.cdf(value) for weight, part in parts)

    for level in (1e-4, 0.3, 0.5, 0.94, 0.96, 0.9999):
        expected = scipy.optimize.brentq(lambda v, level=level: cdf(v) - level, -9, 15, xtol=1e-13)
        assert float(quantile.quantile(distribution, level)) == pytest.approx(expected, rel=1e-9)
    y = torch.tensor([0.5], dtype=torch.float64)
    assert float(cumulative(distribution, y)) == pytest.approx(cdf(0.5), rel=1e-13)
    grid = np.linspace(-6, 12, 400_001)
    curve = np.array(sum(weight * part.cdf(grid) for weight, part in parts))
    score = np.trapezoid((curve - (grid >= 0.5)) ** 2, grid)
    assert float(crps(distribution, y)) == pytest.approx(score, abs=1e-4)
    torch.manual_seed(0)
    drawn = bare()(eta.expand(20_000, -1)).sample()
    # A fixed seed; a right sampler fails with probability 1e-4.
    assert scipy.stats.kstest(drawn.numpy(), np.vectorize(cdf)).pvalue > 1e-4


@pytest.mark.parametrize("component", [GaussianHead(), GaussianHead("predicted"), PoissonHead(), StudentTHead()])
def test_alike_components_are_one(component: Head) -> None:
    head = bare(component, 3)
    one = torch.tensor([0.4, 0.1, 0.9][: component.eta_dim + component.shared_dim], dtype=torch.float64)
    eta = torch.zeros(2, head.eta_dim + head.shared_dim, dtype=torch.float64)
    for k in range(3):
        eta[:, head.columns(k)] = one
    eta[:, head.logits] = torch.tensor([0.3, -2.0], dtype=torch.float64)
    y = torch.tensor([1.0, 4.0], dtype=torch.float64)
    expected = component.double().nll_complete(one.expand(2, -1), y)
    np.testing.assert_allclose(head.nll_complete(eta, y), expected, rtol=1e-13)
    assert head.support is component.support


def test_columns_names_and_units() -> None:
    head = made(GaussianHead(scale_floor=0.01), 3, "shared")
    assert head.eta_names == ("loc_1", "loc_2", "loc_3")
    assert head.shared_names == ("scale_1", "scale_2", "scale_3", "logit_2", "logit_3")
    assert [head.columns(k) for k in range(3)] == [[0, 3], [1, 4], [2, 5]]
    assert head.logits == slice(6, 8)
    head.set_units(5.0, 2.0)
    apart = 2 * scipy.stats.norm.ppf([1 / 6, 3 / 6, 5 / 6])
    np.testing.assert_allclose(head.center, [*(5 + apart), *[math.log(2)] * 3, 0, 0], atol=1e-12)
    assert head.gain.tolist() == [2.0] * 3 + [1.0] * 5
    assert float(head.floor) == pytest.approx(0.02)
    assert head.lowest().tolist()[3:6] == pytest.approx([math.log(0.02)] * 3)
    low = torch.full((1, 8), -50.0, dtype=torch.float64)
    assert head.distribution(low).component_distribution.scale.tolist() == [[pytest.approx(0.02)] * 3]
    assert set(head.state_dict()) == {"center", "gain", "floor", "shared"}


@pytest.mark.parametrize("weights", ["predicted", "shared"])
def test_gradients(weights: str) -> None:
    head = made(GaussianHead("predicted"), 3, weights)
    generator = torch.Generator().manual_seed(0)
    eta = torch.randn(4, head.eta_dim, dtype=torch.float64, generator=generator, requires_grad=True)
    y = torch.tensor([0.1, -2.0, 5.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda e: head.nll(e, y), eta)
    assert torch.autograd.gradgradcheck(lambda e: head.nll(e, y), eta)


def problem(head: Head, x: np.ndarray, y: np.ndarray) -> Problem:
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.as_tensor(x), torch.as_tensor(y, dtype=torch.float64), ones, torch.zeros_like(ones))
    head.set_units(*target_statistics(rows))
    return Problem.of(head, rows, *feature_statistics(rows, True), NoPrior())


@pytest.mark.parametrize("column", [2, 3])
def test_the_best_of_several_starts_against_scikit_learn(column: int) -> None:
    y = load_iris().data[:, column]
    fit = GaussianMixture(2, tol=1e-13, reg_covar=1e-12, n_init=10, max_iter=5000, random_state=0).fit(y[:, None])
    solution = solve_null(problem(made(GaussianHead(), 2, "shared"), np.zeros((150, 0)), y))
    assert solution.objective == pytest.approx(-fit.score(y[:, None]), abs=1e-9)
    assert (solution.converged, solution.is_global, solution.exists) == (True, None, True)
    assert solution.reason is None


def test_two_regression_lines() -> None:
    random = np.random.default_rng(0)
    x, first = random.normal(size=(400, 1)), random.random(400) < 0.4
    y = np.where(first, 1 + 2 * x[:, 0], -1 - 2 * x[:, 0]) + 0.3 * random.normal(size=400)
    solution = LinearBaseline().solve(problem(made(GaussianHead(), 2, "shared"), x, y))
    assert solution.converged
    assert not solution.is_global
    # The oracle: expectation and maximisation from the truth, by weighted least squares.
    design, scale, share = np.column_stack([np.ones(400), x]), np.full(2, 0.3), np.array([0.4, 0.6])
    lines = np.array([[1.0, 2.0], [-1.0, -2.0]])
    for _ in range(300):
        each = np.log(share) + scipy.stats.norm.logpdf(y[:, None], design @ lines.T, scale)
        likelihood = scipy.special.logsumexp(each, 1)
        weight = np.exp(each - likelihood[:, None])
        share = weight.mean(0)
        for k in range(2):
            root = np.sqrt(weight[:, k])
            lines[k] = np.linalg.lstsq(root[:, None] * design, root * y, rcond=None)[0]
            scale[k] = np.sqrt(np.average((y - design @ lines[k]) ** 2, weights=weight[:, k]))
    assert solution.objective == pytest.approx(-likelihood.mean(), abs=1e-9)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match=r"head\.num_components=1"):
        made(count=1)
    with pytest.raises(UsageError, match=r"head\.weights='fixed'"):
        made(weights="fixed")
    with pytest.raises(UsageError, match=r"head\.component: a mixture of BernoulliHead"):
        made(BernoulliHead())
    with pytest.raises(UsageError, match="stay alike"):
        MixtureHead(GaussianHead(), start="zero")
    with pytest.raises(UsageError, match=r"head\.component=mixture"):
        read_settings("train", ["head=mixture", "head.component=mixture"], [], [])


def test_a_component_is_chosen_by_its_name_with_its_metrics(tmp_path: Path) -> None:
    config = read_settings("train", ["head=mixture", "head.component={head: gamma, dispersion: 0.5}"], [], [])
    assert config["head"]["component"]["_target_"] == "mlefw.head.gamma.GammaHead"
    assert config["head"]["component"]["dispersion"] == 0.5
    counts = read_settings("train", ["head=mixture", "head.component=poisson"], [], [])
    assert "dispersion" in counts["metric"]
    assert made(PoissonHead()).support is constraints.nonnegative_integer
