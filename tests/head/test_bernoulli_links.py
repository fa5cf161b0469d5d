"""Binary targets under other links: densities by definition, exact fits beside statsmodels."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats

from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.distribution.special import log_normal_cdf
from mlefw.errors import UsageError
from mlefw.head.bernoulli import BernoulliHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows

FAMILIES = {
    "probit": (sm.families.links.Probit(), stats.norm.cdf),
    "cloglog": (sm.families.links.CLogLog(), lambda eta: -np.expm1(-np.exp(eta))),
    "loglog": (sm.families.links.LogLog(), lambda eta: np.exp(-np.exp(-eta))),
    "cauchit": (sm.families.links.Cauchy(), stats.cauchy.cdf),
}
each = pytest.mark.parametrize("link", ["logit", *FAMILIES])


def exact_nll(link: str, eta: float, y: int) -> float:
    with mpmath.workdps(60):
        e = mpmath.mpf(eta)
        ones = {
            "logit": lambda: (1 / (1 + mpmath.exp(-e)), 1 / (1 + mpmath.exp(e))),
            "probit": lambda: (mpmath.ncdf(e), mpmath.ncdf(-e)),
            "cloglog": lambda: (-mpmath.expm1(-mpmath.exp(e)), mpmath.exp(-mpmath.exp(e))),
            "loglog": lambda: (mpmath.exp(-mpmath.exp(-e)), -mpmath.expm1(-mpmath.exp(-e))),
            "cauchit": lambda: (mpmath.atan2(1, -e) / mpmath.pi, mpmath.atan2(1, e) / mpmath.pi),
        }[link]()
        # A probability next to one: by the other one, which keeps its digits.
        p, q = (ones[0], ones[1]) if y == 1 else (ones[1], ones[0])
        return float(-mpmath.log1p(-q) if q < 0.5 else -mpmath.log(p))


@each
@pytest.mark.parametrize("y", [0, 1])
def test_the_density_by_definition_over_the_whole_range(link, y):
    far = 6.5 if link == "cloglog" else 35.0
    low = -6.5 if link == "loglog" else -35
    eta = np.concatenate([np.linspace(low, far, 41), [-5.0, -1e-8, 0.0, 1e-8, 3.0]])
    column = torch.tensor(eta)[:, None]
    found = BernoulliHead(link).nll(column, torch.full((len(eta),), float(y), dtype=torch.float64))
    expected = [exact_nll(link, float(e), y) for e in eta]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-300)


@each
def test_derivatives(link):
    eta = torch.tensor([[-6.0], [-0.3], [0.0], [0.4], [1.2]], dtype=torch.float64, requires_grad=True)
    for y in (0.0, 1.0):
        target = torch.full((5,), y, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda e, t=target: BernoulliHead(link).nll(e, t), eta)
        assert torch.autograd.gradgradcheck(lambda e, t=target: BernoulliHead(link).nll(e, t), eta)


@each
def test_far_away_slopes_are_finite(link):
    eta = torch.tensor([[-1e4], [-800.0], [-690.0], [690.0]], dtype=torch.float64, requires_grad=True)
    for y in (0.0, 1.0):
        nll = BernoulliHead(link).nll(eta, torch.full((4,), y, dtype=torch.float64))
        (slope,) = torch.autograd.grad(nll.sum(), eta)
        assert torch.isfinite(slope).all()


def test_the_second_derivative_of_the_normal_tail():
    x = torch.tensor([-1e4, -300.0, -20.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_normal_cdf(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    with mpmath.workdps(50):
        # By asymptotics far out, where mpmath's ncdf runs out of digits: −1 + 1/x² − 6/x⁴.
        hazard = [mpmath.npdf(v) / mpmath.ncdf(v) for v in (-20, -1, 2)]
        near = [float(-h * (h + v)) for h, v in zip(hazard, (-20, -1, 2), strict=True)]
    expected = [-1 + 1e-8, -1 + 1 / 9e4 - 6 / 81e8, *near]
    np.testing.assert_allclose(curvature.numpy(), expected, rtol=1e-7)


@each
def test_the_stated_information_is_the_expected_curvature(link):
    head = BernoulliHead(link)
    eta = torch.tensor([[-3.0], [-0.5], [0.0], [0.7], [1.5]], dtype=torch.float64, requires_grad=True)
    p = head(eta).probs.detach()
    curvature = torch.zeros(5, dtype=torch.float64)
    for y, share in ((0.0, 1 - p), (1.0, p)):
        nll = head.nll(eta, torch.full((5,), y, dtype=torch.float64))
        (slope,) = torch.autograd.grad(nll.sum(), eta, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), eta)
        curvature += share * second[:, 0]
    torch.testing.assert_close(head.information(eta.detach())[:, 0, 0], curvature, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("link", FAMILIES)
def test_the_exact_fit_is_that_of_a_generalised_linear_model(link):
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    eta = x @ [0.8, -0.05, 2.0] - 2.0
    of_link, probability = FAMILIES[link]
    y = (random.random(400) < probability(eta)).astype(float)
    model = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial(of_link)).fit(tol=1e-13, maxiter=200)
    rows = Rows(*(torch.tensor(v) for v in (x, y, np.ones(400), np.zeros(400))))
    mean, scale = rows.x.mean(0), rows.x.std(0)
    problem = Problem.of(BernoulliHead(link), rows, mean, scale, NoPrior())
    solution = LinearBaseline().solve(problem)
    assert solution.converged
    # Under Cauchy's distribution function the NLL is not convex, and no global optimum is claimed.
    assert solution.is_global is (None if link == "cauchit" else True)
    assert solution.objective * 400 == pytest.approx(-model.llf, abs=1e-9)
    weight = solution.theta[:3] / scale
    np.testing.assert_allclose(weight.numpy(), model.params[1:], rtol=1e-7)


def test_an_unknown_link_is_refused():
    with pytest.raises(UsageError, match=r"head\.link='gumbel': expected one of logit, probit, cloglog"):
        BernoulliHead("gumbel")
