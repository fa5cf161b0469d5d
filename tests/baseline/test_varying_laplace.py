"""The Laplace head with a predicted scale: a stationary point in both halves jointly, or a likelihood without bound."""

import math

import numpy as np
import pytest
import torch
from exact_oracles import Array, Sample, data, sample, varied
from exact_solving import solve
from scipy.optimize import linprog, minimize

from mlefw.baseline.base import Solution
from mlefw.report.coefficient_table import baseline_content


def standardised(of: Sample) -> Array:
    weight = of.weight
    mean = weight @ of.x / weight.sum()
    spread = np.sqrt(weight @ (of.x - mean) ** 2 / weight.sum())
    return np.column_stack([(of.x - mean) / spread, np.ones(len(of.y))])


def halves(solution: Solution) -> tuple[Array, Array]:
    """Coefficients of the location and of the log scale on the standardised design, in units of the target."""
    head, p = solution.problem.head, solution.problem.num_active + 1
    beta = float(head.gain[0]) * solution.theta[:p].numpy()
    gamma = float(head.gain[1]) * solution.theta[p:].numpy()
    beta[-1] += float(head.center[0])
    gamma[-1] += float(head.center[1])
    return beta, gamma


def weighted_least_absolute(z: Array, y: Array, weight: Array) -> tuple[Array, float]:
    """HiGHS on min Σ weight |y − z beta|, the rows split into what lies above and below."""
    n, p = z.shape
    found = linprog(
        np.concatenate([np.zeros(p), weight, weight]),
        A_eq=np.hstack([z, np.eye(n), -np.eye(n)]),
        b_eq=y,
        bounds=[(None, None)] * p + [(0, None)] * (2 * n),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found.x[:p], float(weight @ np.abs(y - z @ found.x[:p]))


def best_log_scale(z: Array, deviation: Array, weight: Array, start: Array) -> tuple[Array, float]:
    """Scipy on min Σ weight (log 2 + s + deviation · exp(−s)), s = z gamma."""

    def value(gamma: Array) -> tuple[float, Array]:
        s = z @ gamma
        ratio = deviation * np.exp(-s)
        return float(weight @ (math.log(2) + s + ratio)), z.T @ (weight * (1 - ratio))

    def hessian(gamma: Array) -> Array:
        return (z.T * (weight * deviation * np.exp(-z @ gamma))) @ z

    found = minimize(value, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-9})
    return found.x, float(found.fun)


CASES = [("engel", "plain"), ("engel", "weight and offset"), ("diabetes", "plain"), ("diabetes", "weight and offset")]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_neither_half_can_be_improved(name: str, variant: str) -> None:
    """A linear program in the location and scipy in the log scale end where the solver did."""
    of = varied(data(name), variant)
    solution = solve("laplace_varying", of)
    assert solution.exists
    assert solution.converged
    assert not solution.is_global
    assert solution.residual < 1e-11
    z, (beta, gamma) = standardised(of), halves(solution)
    y, population = of.y - of.offset, of.weight.sum()
    weight = of.weight * np.exp(-z @ gamma)
    _, least = weighted_least_absolute(z, y, weight)
    assert float(weight @ np.abs(y - z @ beta)) == pytest.approx(least, rel=1e-10)
    deviation = np.abs(y - z @ beta)
    _, best = best_log_scale(z, deviation, of.weight, np.append(np.zeros(of.x.shape[1]), math.log(deviation.mean())))
    assert solution.objective == pytest.approx(best / population, abs=1e-10)


@pytest.mark.parametrize("name", ["engel", "diabetes", "stackloss"])
def test_alternating_from_many_other_starts_finds_nothing_better(name: str) -> None:
    of = data(name)
    solution = solve("laplace_varying", of)
    z, (beta, _) = standardised(of), halves(solution)
    level = math.log(np.abs(of.y - z @ beta).mean())
    random = np.random.default_rng(1)
    reached = []
    for _ in range(6):
        gamma = np.append(0.4 * random.normal(size=z.shape[1] - 1), level)
        value = math.inf
        for _ in range(30):
            location, _ = weighted_least_absolute(z, of.y, np.exp(-z @ gamma))
            before = value
            gamma, value = best_log_scale(z, np.abs(of.y - z @ location), of.weight, gamma)
            if before - value < 1e-9:
                break
        reached.append(value / len(of.y))
    assert solution.objective <= min(reached) + 1e-9


@pytest.mark.parametrize("tau", [None, 0.3])
def test_no_small_step_descends(tau: float | None) -> None:
    """Both halves at once, and the prior on both."""
    of = data("engel")
    solution = solve("laplace_varying", of, tau)
    assert solution.converged
    z, (beta, gamma) = standardised(of), halves(solution)
    unit, n = float(of.y.std()), len(of.y)

    def objective(step: Array) -> float:
        b, g = beta + unit * step[: len(beta)], gamma + step[len(beta) :]
        s = z @ g
        nll = float(np.mean(math.log(2) + s + np.abs(of.y - z @ b) * np.exp(-s)))
        if tau is None:
            return nll
        weights = np.append(b[:-1] / unit, g[:-1])
        return nll + float(np.sum(0.5 * (weights / tau) ** 2 + 0.5 * math.log(2 * math.pi) + math.log(tau))) / n

    here = objective(np.zeros(4))
    assert here == pytest.approx(solution.objective, rel=1e-12)
    random = np.random.default_rng(0)
    for length in (1e-1, 1e-3, 1e-5, 1e-7):
        for _ in range(200):
            assert objective(length * random.normal(size=4)) > here - 1e-13


def test_standard_errors_are_those_of_the_expected_information() -> None:
    """Location: inverse of Σ z z' / scale²; log scale: inverse of Σ z z' (in original units)."""
    of = data("engel")
    solution = solve("laplace_varying", of)
    content = baseline_content(solution, list(of.names), None, "default")
    _, gamma = halves(solution)
    design = np.column_stack([np.ones(len(of.y)), of.x])
    scale = np.exp(standardised(of) @ gamma)
    location = np.sqrt(np.diag(np.linalg.inv((design.T / scale**2) @ design)))
    log_scale = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    tables = content["coefficients"]
    np.testing.assert_allclose([row["std_error"] for row in tables["loc"]], location, rtol=1e-8)
    np.testing.assert_allclose([row["std_error"] for row in tables["scale"]], log_scale, rtol=1e-8)


def test_a_constant_scale_is_found_among_varying_ones() -> None:
    """Without features both heads are one: the median and the mean deviation from it."""
    y = data("stackloss").y
    solution = solve("laplace_varying", sample(np.zeros((len(y), 1)), y))
    assert solution.is_global
    assert solution.objective == pytest.approx(1 + math.log(2 * np.abs(y - np.median(y)).mean()), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rows_fitted_exactly_let_the_scale_collapse(seed: int) -> None:
    random = np.random.default_rng(seed)
    group = np.arange(200) % 20 == 0
    x = np.column_stack([random.normal(size=200), group])
    solution = solve("laplace_varying", sample(x, x[:, 0] + 3 * group + ~group * random.laplace(size=200)))
    assert not solution.exists
    assert "10 of 200 rows are fitted exactly" in solution.reason


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_target_has_no_predicted_scale(value: float) -> None:
    of = data("stackloss")
    solution = solve("laplace_varying", Sample(of.x, of.names, np.full(len(of.y), value), of.weight, of.offset))
    assert not solution.exists
    assert "unbounded" in solution.reason


def test_many_rows() -> None:
    """The reduction of rows under changing weights: the truth is near, and neither half can be improved."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + random.laplace(size=4000) * np.exp(0.5 * x[:, 0] - 0.3 * x[:, 1])
    of = sample(x, y)
    solution = solve("laplace_varying", of)
    assert solution.converged
    z, (beta, gamma) = standardised(of), halves(solution)
    weight = np.exp(-z @ gamma)
    found = linprog(-y, A_eq=z.T, b_eq=np.zeros(4), bounds=np.column_stack([-weight, weight]), method="highs-ds")
    assert float(weight @ np.abs(y - z @ beta)) == pytest.approx(-found.fun, rel=1e-9)
    assert torch.tensor(gamma[:2] / x.std(0)[:2] - [0.5, -0.3]).abs().max() < 0.1
