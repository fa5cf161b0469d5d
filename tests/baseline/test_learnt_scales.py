"""Learnt scales by a second derivation: the jointly convex form of Olsen (1978), and brute force under a prior."""

import math
import time

import numpy as np
import pytest
import torch
from exact_oracles import Array, Sample, data, sample, varied
from exact_solving import problem_of, solve
from scipy.integrate import quad
from scipy.optimize import brentq, linprog, minimize

from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.head.censored import CensoredHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics

CASES = [(name, variant) for name in ("stackloss", "engel", "diabetes") for variant in ("plain", "weight and offset")]


def standardised(of: Sample) -> tuple[Array, Array, float]:
    """Design with a column of ones last, the target less its offset about its mean and over its spread, and that."""
    mean, spread = of.x.mean(0), of.x.std(0)
    y = of.y - of.offset
    unit = float(y.std())
    return np.column_stack([(of.x - mean) / spread, np.ones(len(y))]), (y - y.mean()) / unit, unit


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_gaussian_by_newton_on_the_convex_form(name: str, variant: str) -> None:
    """With g = beta / sigma and h = 1 / sigma the NLL is −log h + ½ (h y − z'g)² + ½ log 2π: convex in (g, h)."""
    of = varied(data(name), variant)
    z, t, unit = standardised(of)
    n, design = of.weight.sum(), np.column_stack([-z, t])
    gram = (design.T * of.weight) @ design / n
    at = np.append(np.zeros(z.shape[1]), 1.0)

    def value(of_: Array) -> float:
        return float(0.5 * math.log(2 * math.pi) - math.log(of_[-1]) + 0.5 * of_ @ gram @ of_)

    for _ in range(60):
        gradient, hessian = gram @ at, gram.copy()
        gradient[-1] -= 1 / at[-1]
        hessian[-1, -1] += at[-1] ** -2
        step, length = -np.linalg.solve(hessian, gradient), 1.0
        while (at + length * step)[-1] <= 0 or value(at + length * step) > value(at) + 1e-15:
            length /= 2
            if length < 1e-10:
                break
        at = at + length * step
    assert np.abs(gram @ at - np.append(np.zeros(z.shape[1]), 1 / at[-1])).max() < 1e-10
    solution = solve("gaussian", of)
    assert solution.objective == pytest.approx(value(at) + math.log(unit), abs=1e-10)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_laplace_by_linear_programs_on_the_convex_form(name: str, variant: str) -> None:
    """For each h a linear program in g gives min Σ w |h y − z'g|; −n log h is left, whose slope crosses zero once.

    The slope of the program in h is d'y with its dual values d, read off HiGHS: no mean absolute residual is taken.
    """
    of = varied(data(name), variant)
    z, t, unit = standardised(of)
    n, (rows, p) = of.weight.sum(), z.shape

    def program(h: float) -> tuple[float, float]:
        found = linprog(
            np.concatenate([np.zeros(p), of.weight, of.weight]),
            A_eq=np.hstack([z, np.eye(rows), -np.eye(rows)]),
            b_eq=h * t,
            bounds=[(None, None)] * p + [(0, None)] * (2 * rows),
            method="highs-ds",
        )
        return float(found.fun), float(found.eqlin.marginals @ t)

    h = brentq(lambda h: program(h)[1] - n / h, 0.1, 100.0, xtol=1e-14)
    least = math.log(2) - math.log(h) + program(h)[0] / n + math.log(unit)
    assert solve("laplace", of).objective == pytest.approx(least, abs=1e-10)


def ridge_objective(z: Array, t: Array, tau: float, theta: Array) -> tuple[float, Array]:
    """Mean NLL and prior of Gaussian (weights, bias, log sigma), and its gradient, by hand."""
    n, beta, s = len(t), theta[:-1], theta[-1]
    residual, weights = t - z @ beta, beta[:-1]
    square = float(residual @ residual) * math.exp(-2 * s)
    constant = 0.5 * math.log(2 * math.pi)
    value = n * (constant + s) + 0.5 * square
    value += 0.5 * float(weights @ weights) / tau**2 + len(weights) * (constant + math.log(tau))
    slope = -math.exp(-2 * s) * (z.T @ residual)
    slope[:-1] += weights / tau**2
    return value / n, np.append(slope, n - square) / n


def two_valleys(seed: int) -> Sample:
    """Few rows, nearly as many features, and a signal that the prior finds too large."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(12, 8))
    return sample(x, x @ random.normal(size=8) + 0.05 * random.normal(size=12))


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.15, 0.2, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_search_over_the_scale_is_as_good_as_many_descents(seed: int, tau: float) -> None:
    of = two_valleys(seed)
    z, t, unit = standardised(of)
    random = np.random.default_rng(seed)
    ends = []
    for start in np.linspace(-6, 1, 29):
        theta = np.append(random.normal(size=9), start)
        found = minimize(lambda at: ridge_objective(z, t, tau, at), theta, jac=True, method="BFGS", tol=1e-10)
        if np.abs(found.jac).max() < 1e-6:
            ends.append(float(found.fun))
    solution = solve("gaussian", of, tau)
    assert solution.is_global
    assert len(ends) > 5
    assert solution.objective - math.log(unit) == pytest.approx(min(ends), abs=1e-9)


def test_some_of_these_have_two_valleys() -> None:
    """Else the test above would say nothing about a global search."""
    found = 0
    for seed in range(4):
        for tau in (0.05, 0.1, 0.15, 0.2, 0.3, 1.0):
            z, t, _ = standardised(two_valleys(seed))
            values, vectors = np.linalg.eigh(z[:, :-1].T @ z[:, :-1])
            q = vectors.T @ z[:, :-1].T @ t
            grid = np.linspace(-7, 0.5, 2000)
            profile = []
            for s in grid:
                weights = q / (values + math.exp(2 * s) / tau**2)
                theta = np.concatenate([vectors @ weights, [0.0, s]])
                profile.append(ridge_objective(z, t, tau, theta)[0])
            inner = np.array(profile)
            found += int(((inner[1:-1] < inner[:-2]) & (inner[1:-1] < inner[2:])).sum() > 1)
    assert found >= 2


@pytest.mark.parametrize("head", ["gaussian", "laplace"])
@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize(("n", "p"), [(9, 8), (10, 15), (20, 60)])
def test_as_many_features_as_rows_leave_a_learnt_scale_unbounded(head: str, tau: float, n: int, p: int) -> None:
    random = np.random.default_rng(n)
    solution = solve(head, sample(random.normal(size=(n, p)), random.normal(size=n)), tau)
    assert not solution.exists
    assert solution.reason == "the linear model fits every row exactly: the likelihood is unbounded as scale goes to 0"


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_a_given_scale_bounds_it(tau: float) -> None:
    random = np.random.default_rng(0)
    of = sample(random.normal(size=(10, 15)), random.normal(size=10))
    for head in ("gaussian_fixed", "laplace_fixed"):
        solution = solve(head, of, tau, scale=0.5)
        assert solution.exists
        assert solution.converged


def test_the_profile_has_the_gradient_of_the_whole() -> None:
    """At the end of the search the formula above has no slope left, either."""
    of, tau = two_valleys(1), 0.2
    problem = problem_of("gaussian", of, tau)
    solution = LeastSquares().solve(problem)
    z, t, unit = standardised(of)
    theta = solution.theta.numpy().copy()
    head = problem.head
    theta[:-1] *= float(head.gain[0]) / unit
    theta[-2] += (float(head.center[0]) - of.y.mean()) / unit
    theta[-1] = float(head.center[1] + head.gain[1] * torch.tensor(theta[-1])) - math.log(unit)
    value, slope = ridge_objective(z, t, tau, theta)
    assert value == pytest.approx(solution.objective - math.log(unit), abs=1e-12)
    assert np.abs(slope).max() < 1e-9


# --- densities with a kink, or nearly one, under a prior

PRIORS = {"l1": L1Prior(0.5), "l2": L2Prior(0.5), "both": ElasticNetPrior(0.5, 0.5)}


def of_priors(name: str, beta: Array, width: float) -> float:
    """Minus the logarithm of the prior up to a constant, its kink rounded by `width`."""
    kinked, ridge = np.sqrt(beta**2 + width**2).sum() / 0.5, beta @ beta / (2 * 0.5**2)
    return float({"l1": kinked, "l2": ridge, "both": kinked + ridge}[name])


def huber(delta: float, u: Array) -> Array:
    return np.where(np.abs(u) <= delta, 0.5 * u**2, delta * np.abs(u) - 0.5 * delta**2)


def smoothed(x: Array, low: Array, high: Array, delta: float | None, prior: str) -> float:
    """The least objective, in units of the target, by BFGS from several scales, its kinks rounded ever less."""
    z = np.column_stack([x, np.ones(len(x))])
    exact, mass = low == high, 2.0
    if delta is not None:
        # Of the tails in closed form, of the middle by quadrature.
        inner = quad(lambda u: math.exp(-float(huber(delta, np.array(u)))), 0, delta, epsabs=1e-14)[0]
        mass = 2 * (inner + math.exp(-0.5 * delta**2) / delta)

    def value(at: Array, width: float) -> float:
        u = (np.where(np.isnan(high), low, high) - z @ at[:-1]) * math.exp(-at[-1])
        above = np.where(u >= 0, u + math.log(2), -np.log1p(-0.5 * np.exp(np.minimum(u, 0))))
        near = np.sqrt(u**2 + width**2) if delta is None else huber(delta, u)
        rows = np.where(exact, near + math.log(mass) + at[-1], above)
        return float(rows.mean()) + of_priors(prior, at[:-2], width) / len(x)

    ends = []
    for start in (0.0, -2.0):
        at = np.append(np.zeros(z.shape[1]), start)
        for width in np.logspace(-1, -9, 17):
            at = minimize(value, at, args=(width,), method="BFGS", options={"gtol": 1e-11}).x
        ends.append(value(at, 0.0))
    return min(ends)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("delta", [None, 1.345, 0.01, 0.001], ids=["censored laplace", "huber", "0.01", "0.001"])
def test_a_kinked_density_under_a_prior(delta: float | None, prior: str) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3))
    y = x @ [1.0, 2.0, 0.0] + 1 + random.standard_t(3, size=40)
    open_above = (np.arange(40) % 3 == 0) & (delta is None)
    low, high = np.where(open_above, y - 0.3, y), np.where(open_above, math.nan, y)
    head = CensoredHead(LaplaceHead()) if delta is None else HuberHead(delta=delta)
    points = np.where(open_above, low, y)
    target = np.column_stack([low, high]) if delta is None else y
    rows = Rows(torch.tensor(x), torch.tensor(target), torch.ones(40).double(), torch.zeros(40).double())
    head.set_units(float(points.mean()), float(points.std()))
    started = time.process_time()
    solution = LinearBaseline().solve(Problem.of(head, rows, *feature_statistics(rows, True), PRIORS[prior]))
    assert time.process_time() - started < 5
    unit, z = points.std(), (x - x.mean(0)) / x.std(0)
    expected = smoothed(z, (low - points.mean()) / unit, (high - points.mean()) / unit, delta, prior)
    expected += math.log(unit) * (~open_above).mean() + float(PRIORS[prior](torch.zeros(1, 3).double())) / 40
    assert solution.exists
    assert solution.converged
    assert solution.objective <= expected + 1e-9
    assert solution.objective == pytest.approx(expected, abs=1e-5)
