"""Quantile regression: published values, statsmodels and a linear program, and its standard errors."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import Sample, data, sample, varied
from exact_solving import configured, rows_of
from scipy.optimize import linprog
from scipy.stats import norm

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import coefficient_tables
from mlefw.baseline.covariance import covariance
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.baseline.quantile_errors import bandwidth
from mlefw.head.quantile import AsymmetricLaplace, QuantileHead
from mlefw.metric.pinball import Pinball
from mlefw.prior.base import Prior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.standardize import feature_statistics, target_statistics
from mlefw.run.placement import place


def solve(of: Sample, prior: Prior | None = None, **settings: object) -> Solution:
    rows, head = rows_of(of, "quantile"), configured("quantile", **settings).double()
    head.set_units(*target_statistics(rows))
    mean, spread = feature_statistics(rows, True)
    head = place(head, solve_null(Problem.of(head, rows, mean, spread, NoPrior())))
    return LinearBaseline().solve(Problem.of(head, rows, mean, spread, prior or NoPrior()))


def loc(solution: Solution) -> list[float]:
    names = [f"x{k}" for k in range(solution.problem.rows.x.shape[1])]
    return [row["estimate"] for row in coefficient_tables(solution, names, None, None)["loc"]]


def loss(of: Sample, beta: list[float], level: float) -> float:
    residual = of.y - of.offset - sm.add_constant(of.x) @ beta
    return float(of.weight @ np.maximum(level * residual, (level - 1) * residual))


def test_food_expenditure_of_engel() -> None:
    """Koenker & Bassett (1982); estimates and errors as R's `rq` and `summary(se = "nid")` print them."""
    of, solution = data("engel"), solve(data("engel"), quantile=0.75)
    assert loc(solution) == pytest.approx([62.39658553, 0.64401414], rel=1e-8)
    assert loss(of, loc(solution), 0.75) == pytest.approx(6529.250283893928, rel=1e-13)
    assert solution.exists
    assert solution.is_global
    assert solution.gap is not None
    assert solution.gap < 1e-12
    scale = loss(of, loc(solution), 0.75) / len(of.y)
    assert solution.objective == pytest.approx(math.log(scale) - math.log(0.75 * 0.25) + 1, rel=1e-13)
    found = covariance(solution)
    assert not isinstance(found, str)
    assert found.kind == "Hendricks-Koenker (nid)"
    rows = coefficient_tables(solution, ["income"], None, found)["loc"]
    np.testing.assert_allclose([row["std_error"] for row in rows], [16.3053766, 0.02323917], rtol=2e-7)


@pytest.mark.parametrize("level", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
def test_every_level_by_a_linear_program(level: float, variant: str) -> None:
    of = varied(data("stackloss"), variant)
    design = sm.add_constant(of.x)
    n, p = design.shape
    cost = np.concatenate([np.zeros(p), level * of.weight, (1 - level) * of.weight])
    whole = np.concatenate([design, np.eye(n), -np.eye(n)], 1)
    bounds = [(None, None)] * p + [(0, None)] * (2 * n)
    best = linprog(cost, A_eq=whole, b_eq=of.y - of.offset, bounds=bounds)
    solution = solve(of, quantile=level)
    assert solution.is_global
    assert loss(of, loc(solution), level) == pytest.approx(best.fun, rel=1e-9)


def test_many_rows_are_globbed() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(8000, 3))
    of = sample(x, x @ [1.0, 2.0, 0.5] + random.standard_t(3, 8000))
    solution = solve(of, quantile=0.9)
    assert solution.gap is not None
    assert solution.gap < 1e-12
    model = sm.QuantReg(of.y, sm.add_constant(x)).fit(0.9, max_iter=3000)
    assert loss(of, loc(solution), 0.9) <= loss(of, list(model.params), 0.9) * (1 + 1e-12)
    np.testing.assert_allclose(loc(solution), model.params, atol=1e-4)


def test_without_features_it_is_the_quantile_of_the_sample() -> None:
    y = np.random.default_rng(1).normal(size=101)
    head = solve_null(solve(sample(np.arange(101.0)[:, None], y), quantile=0.25).problem)
    at = float(head.problem.head.center[0] + head.problem.head.gain[0] * head.theta[0])
    assert at == pytest.approx(float(np.quantile(y, 0.25, method="inverted_cdf")), rel=1e-12)


def test_other_scales_and_priors() -> None:
    of = data("engel")
    half = solve(of, quantile=0.5)
    assert loc(half) == pytest.approx([81.48224744, 0.56018055], rel=1e-8)
    fixed = solve(of, quantile=0.75, scale=30.0)
    assert loc(fixed) == pytest.approx([62.39658553, 0.64401414], rel=1e-8)
    varying = solve(of, quantile=0.75, scale="predicted")
    assert varying.converged
    assert varying.objective < solve(of, quantile=0.75).objective - 0.1
    penalised = solve(of, L1Prior(1.0), quantile=0.75)
    assert penalised.is_global
    theta, best = penalised.theta, penalised.objective
    for k in range(3):
        for step in (-1e-3, 1e-3):
            moved = theta.clone()
            moved[k] += step
            assert penalised.problem.value(moved) > best


def test_the_bandwidth_of_hall_and_sheather() -> None:
    expected = 235 ** (-1 / 3) * norm.ppf(0.975) ** (2 / 3)
    expected *= (1.5 * norm.pdf(norm.ppf(0.75)) ** 2 / (2 * norm.ppf(0.75) ** 2 + 1)) ** (1 / 3)
    assert bandwidth(0.75, 235) == pytest.approx(expected, rel=1e-13)
    assert bandwidth(0.001, 20) < 0.001


def test_a_published_log_density_and_its_moments() -> None:
    one = AsymmetricLaplace(torch.tensor([1.0]).double(), torch.tensor([0.7]).double(), 0.2)
    assert float(one.log_prob(torch.tensor([1.5]).double())) == pytest.approx(-1.618763662666720608597, rel=1e-7)
    torch.manual_seed(0)
    drawn = one.rsample(torch.Size([200_000]))
    assert float(drawn.mean()) == pytest.approx(float(one.mean), abs=0.05)
    assert float(drawn.var()) == pytest.approx(float(one.variance), rel=0.03)
    assert float((drawn <= 1.0).double().mean()) == pytest.approx(0.2, abs=0.005)
    metric = Pinball()
    metric.update(one, torch.tensor([2.0, 0.5]).double(), torch.tensor([3.0, 1.0]).double())
    figures = metric.compute()
    assert float(figures["pinball"]) == pytest.approx((3 * 0.2 + 0.8 * 0.5) / 4)
    assert float(figures["below"]) == pytest.approx(0.25)


@pytest.mark.parametrize("level", [0.1, 0.8])
def test_the_stated_information_of_any_level(level: float) -> None:
    head = QuantileHead(level)
    torch.manual_seed(0)
    eta = torch.tensor([[0.3, -0.2]]).double().expand(400_000, 2).clone().requires_grad_()
    y = head.distribution(eta.detach()).rsample()  # type: ignore[attr-defined]
    (score,) = torch.autograd.grad(head.nll_complete(eta, y).sum(), eta)
    np.testing.assert_allclose(score.T @ score / len(y), head.information(eta[:1].detach())[0], atol=0.02)


def test_several_levels_are_those_of_each_alone() -> None:
    """Estimates and errors as R's `summary(rq(foodexp ~ income, tau = t), se = "nid")` prints them for each level."""
    whole = solve_levels(NoPrior())
    expected = {
        "q10": ([110.1415742049, 0.4017657593], [29.39767879761, 0.04024016767]),
        "q50": ([81.4822474169, 0.5601805512], [19.25066125211, 0.02827720968]),
        "q90": ([67.3508720801, 0.6862994804], [22.39538314545, 0.02849072238]),
    }
    assert whole.is_global
    assert whole.exists
    for part, (name, (estimates, errors)) in zip(whole.parts, expected.items(), strict=True):
        found = covariance(part)
        assert not isinstance(found, str)
        rows = coefficient_tables(part, ["income"], None, found)["loc"]
        np.testing.assert_allclose([row["estimate"] for row in rows], estimates, rtol=1e-8, err_msg=name)
        np.testing.assert_allclose([row["std_error"] for row in rows], errors, rtol=1e-6, err_msg=name)
    alone = [solve(data("engel"), quantile=level).objective for level in (0.1, 0.5, 0.9)]
    assert whole.objective == pytest.approx(np.mean(alone), rel=1e-12)
    assert whole.problem.value(whole.theta) == pytest.approx(whole.objective, rel=1e-12)


@pytest.mark.parametrize("prior", [L1Prior(0.5), L2Prior(0.5)], ids=["l1", "l2"])
def test_a_prior_is_one_of_all_levels(prior: Prior) -> None:
    whole = solve_levels(prior)
    problem, theta, best = whole.problem, whole.theta, whole.objective
    assert whole.is_global
    assert problem.value(theta) == pytest.approx(best, rel=1e-12)
    for k in range(len(theta)):
        for step in (-1e-3, 1e-3):
            moved = theta.clone()
            moved[k] += step
            assert problem.value(moved) > best


def solve_levels(prior: Prior) -> Solution:
    of = data("engel")
    rows, head = rows_of(of, "quantiles"), configured("quantiles").double()
    head.set_units(*target_statistics(rows))
    mean, spread = feature_statistics(rows, True)
    head = place(head, solve_null(Problem.of(head, rows, mean, spread, NoPrior())))
    return LinearBaseline().solve(Problem.of(head, rows, mean, spread, prior))
