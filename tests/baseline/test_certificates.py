"""What a solution claims of itself: objective, residual, convergence; and two solvers on one problem."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact_oracles import Sample, data, least_absolute, sample, varied
from exact_solving import problem_of, solve
from torch import Tensor

from mlefw.baseline import least_squares
from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.moments import Moments
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem

SCALE = 7.5
LOG_2PI = math.log(2 * math.pi)


def nll(head: str, eta: Tensor, y: Tensor) -> Tensor:
    """Each density by its formula, for a complete eta."""
    first = eta[:, 0]
    if head == "gaussian_fixed":
        return 0.5 * LOG_2PI + math.log(SCALE) + 0.5 * ((y - first) / SCALE) ** 2
    if head in ("gaussian", "heteroscedastic"):
        return 0.5 * LOG_2PI + eta[:, 1] + 0.5 * (y - first) ** 2 * torch.exp(-2 * eta[:, 1])
    if head == "laplace":
        return math.log(2) + eta[:, 1] + (y - first).abs() * torch.exp(-eta[:, 1])
    if head == "bernoulli":
        return torch.logaddexp(-(2 * y - 1) * first, torch.zeros_like(first))
    if head == "categorical":
        return torch.logsumexp(eta, 1) - eta[torch.arange(len(y)), y]
    return first.exp() - y * first + torch.lgamma(y + 1)


def objective(head: str, problem: Problem, tau: float | None, theta: Tensor) -> Tensor:
    """Nats per observation, from the rows up."""
    rows, active = problem.rows, problem.active
    z = (rows.x[:, active] - problem.mean[active]) / problem.scale[active]
    columns, p = problem.head.eta_dim, len(active)
    table = theta[: columns * (p + 1)].reshape(columns, p + 1)
    raw = z @ table[:, :p].T + table[:, p]
    raw = torch.cat([raw, theta[columns * (p + 1) :].expand(len(z), -1)], 1)
    eta = problem.head.center + problem.head.gain * raw + rows.offset[:, None] * torch.eye(raw.shape[1])[0]
    population = rows.weight.sum()
    value = (rows.weight * nll(head, eta, rows.y)).sum() / population
    if tau is not None:
        weights = table[:, :p]
        value = value + torch.sum(0.5 * (weights / tau) ** 2 + 0.5 * LOG_2PI + math.log(tau)) / population
    return value


CASES = [
    ("gaussian", "stackloss"),
    ("gaussian", "diabetes"),
    ("gaussian_fixed", "diabetes"),
    ("heteroscedastic", "engel"),
    ("bernoulli", "spector"),
    ("bernoulli", "fair"),
    ("categorical", "anes96"),
    ("poisson", "cpunish"),
]
TAUS = [None, 0.1, 1.0]


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
@pytest.mark.parametrize(("head", "name"), CASES)
def test_the_gradient_vanishes(head: str, name: str, variant: str, tau: float | None) -> None:
    solution = solve(head, varied(data(name), variant), tau, SCALE)
    theta = solution.theta.clone().requires_grad_()
    value = objective(head, solution.problem, tau, theta)
    (gradient,) = torch.autograd.grad(value, theta)
    size = max(1.0, abs(float(value.detach())))
    assert solution.converged
    assert solution.objective == pytest.approx(float(value.detach()), rel=1e-12, abs=1e-12)
    assert float(gradient.abs().max()) < 1e-9 * size
    assert solution.residual < 1e-9 * size


@pytest.mark.parametrize(("head", "name"), [*CASES, ("laplace", "engel")])
def test_derivatives(head: str, name: str) -> None:
    tau = 0.7
    problem = problem_of(head, varied(data(name), "weight and offset"), tau, SCALE)
    theta = 0.3 * torch.randn(problem.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = problem.derivatives(theta)

    def function(at: Tensor) -> Tensor:
        return objective(head, problem, tau, at)

    gradient = torch.autograd.functional.jacobian(function, theta)
    hessian = torch.autograd.functional.hessian(function, theta)
    assert found.value == pytest.approx(float(function(theta)), rel=1e-12)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.hessian, hessian, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(problem.slope(theta)[1], gradient, rtol=1e-9, atol=1e-10)
    assert problem.value(theta) == pytest.approx(float(function(theta)), rel=1e-12)


@pytest.mark.parametrize(
    ("head", "name"), [("bernoulli", "spector"), ("poisson", "cpunish"), ("categorical", "anes96")]
)
def test_a_solver_that_stops_early_says_so(head: str, name: str) -> None:
    problem = problem_of(head, data(name))
    solution = Newton(max_steps=2).solve(problem)
    theta = solution.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(head, problem, None, theta), theta)
    assert not solution.converged
    assert solution.num_steps == 2
    assert solution.residual == pytest.approx(float(gradient[problem.free].abs().max()), rel=1e-9)


def test_blocks_of_rows_add_up() -> None:
    problem = problem_of("poisson", varied(data("randhie"), "weight and offset"))
    theta = 0.1 * torch.randn(problem.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, parts = replace(problem, block_rows=10**6), replace(problem, block_rows=997)
    torch.testing.assert_close(
        parts.derivatives(theta).hessian, whole.derivatives(theta).hessian, rtol=1e-11, atol=1e-13
    )
    torch.testing.assert_close(parts.slope(theta)[1], whole.slope(theta)[1], rtol=1e-11, atol=1e-13)
    assert parts.value(theta) == pytest.approx(whole.value(theta), rel=1e-13)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
@pytest.mark.parametrize("head", ["gaussian", "gaussian_fixed"])
@pytest.mark.parametrize("name", ["stackloss", "scotland", "diabetes"])
def test_least_squares_and_newton_agree(name: str, head: str, variant: str, tau: float | None) -> None:
    problem = problem_of(head, varied(data(name), variant), tau, SCALE)
    one, other = LeastSquares().solve(problem), Newton().solve(problem)
    assert one.converged
    assert other.converged
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    torch.testing.assert_close(one.theta, other.theta, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
@pytest.mark.parametrize("head", ["laplace", "laplace_fixed"])
@pytest.mark.parametrize("name", ["stackloss", "engel", "scotland", "diabetes"])
def test_least_absolute_deviations_bound_their_own_error(name: str, head: str, variant: str) -> None:
    of = varied(data(name), variant)
    problem = problem_of(head, of, scale=SCALE)
    solution = LeastAbsolute().solve(problem)
    x, y, offset = of.repeated()
    z = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
    _, loss = least_absolute(z, (y - offset) / y.std())
    loss *= y.std() / len(y)
    best = 1 + math.log(2 * loss) if head == "laplace" else math.log(2 * SCALE) + loss / SCALE
    assert solution.converged
    assert -1e-10 < solution.objective - best < 1e-10 + solution.residual
    assert 0 <= solution.residual < 1e-8


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("name", ["stackloss", "engel", "diabetes"])
def test_penalised_least_absolute_deviations_are_stationary(name: str, tau: float) -> None:
    """Each smooth direction has a zero derivative and each kink holds it between its one-sided ones."""
    problem = problem_of("laplace", varied(data(name), "weight"), tau)
    solution = LeastAbsolute().solve(problem)
    assert solution.converged
    best = float(objective("laplace", problem, tau, solution.theta))
    assert solution.objective == pytest.approx(best, rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        step = torch.randn(problem.size, dtype=torch.float64, generator=generator)
        for length in (1e-1, 1e-3, 1e-5):
            assert float(objective("laplace", problem, tau, solution.theta + length * step)) > best - 1e-11


def test_the_global_optimum_among_two() -> None:
    """Ridge with a learnt scale on few rows can have two valleys: no start of a descent is better than the search."""
    generator = np.random.default_rng(0)
    of = sample(generator.normal(size=(12, 8)), generator.normal(size=12))
    problem = problem_of("gaussian", of, 1.0)
    best = LeastSquares().solve(problem)
    assert best.is_global
    reached = []
    for start in range(8):
        seed = torch.Generator().manual_seed(start)
        theta = torch.randn(problem.size, dtype=torch.float64, generator=seed)
        theta[-1] = -4.0 + 4.0 * start / 8
        local = Newton().solve_from(problem, theta)
        if local.converged:
            reached.append(local.objective)
    assert len(reached) > 3
    assert best.objective <= min(reached) + 1e-12
    assert best.objective == pytest.approx(min(reached), rel=1e-10)


def powers(degree: int = 10) -> Sample:
    """Powers as they are, like Filip of NIST: correlation matrix with a condition number beyond 64 bits."""
    x = -3.0 - 6 * np.arange(1, 61) / 64
    y = np.round(np.sin(x) + 0.1 * np.cos(37 * x), 6)
    return sample(np.stack([x**k for k in range(1, degree + 1)], 1), y)


def rational_least_squares(of: Sample) -> np.ndarray:
    """Normal equations, intercept first, in rational numbers."""
    rows = [
        [Fraction(1), *map(Fraction, row), Fraction(y)] for row, y in zip(of.x.tolist(), of.y.tolist(), strict=True)
    ]
    size = of.x.shape[1] + 1
    table = [[sum(row[i] * row[j] for row in rows) for j in range(size + 1)] for i in range(size)]
    for i in range(size):
        table[i] = [cell / table[i][i] for cell in table[i]]
        for k in range(size):
            if k != i:
                table[k] = [cell - table[k][i] * other for cell, other in zip(table[k], table[i], strict=True)]
    return np.array([float(line[-1]) for line in table])


def test_terms_that_cancel_are_no_doubt_about_a_fit() -> None:
    """The gradient of an ill-conditioned fit is the rounding of terms far larger than itself."""
    of = powers()
    solution = solve("gaussian", of)
    problem, weight = solution.problem, solution.problem.split(solution.theta)[0]
    slopes = (problem.head.gain[0] * weight[0] / problem.scale).numpy()
    expected = rational_least_squares(of)
    np.testing.assert_allclose(slopes, expected[1:], rtol=1e-5)
    assert solution.residual > 1e-9
    assert solution.converged


@pytest.mark.parametrize("error", [1e-12, -1e-9])
def test_a_fit_that_is_off_by_more_than_rounding_is_not_certified(
    error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, problem = least_squares.moments, problem_of("gaussian", powers())

    def wrong(problem: Problem) -> Moments:
        found = right(problem)
        weight = found.weight.clone()
        weight[3] *= 1 + error
        return replace(found, weight=weight)

    monkeypatch.setattr(least_squares, "moments", wrong)
    assert not LeastSquares().solve(problem).converged
