"""More features than rows: the products of the rows against the textbook's of the features, and the memory it takes."""

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge
from torch.utils._python_dispatch import TorchDispatchMode

from mlefw.baseline.base import Solution
from mlefw.baseline.certificate import excess_bound
from mlefw.baseline.coefficients import coefficient_tables
from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.baseline.wide_moments import is_wide
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics


def problem_of(
    n: int, p: int, scale: float | None, tau: float | None, repeated: bool = False, weighted: bool = True
) -> Problem:
    """Features of different spreads away from zero; `repeated` rows have the same features and another target."""
    random = np.random.default_rng(n + p)
    x = random.normal(size=(n, p)) * 10.0 ** random.integers(-2, 3, p) + 10
    x = x[np.arange(n) % (n // 2)] if repeated else x
    y = 50 + x[:, 0] / x[:, 0].std() + random.normal(size=n)
    weight = random.integers(1, 4, n).astype(float) if weighted else np.ones(n)
    offset = 0.3 * random.normal(size=n) if weighted else np.zeros(n)
    rows = Rows(*(torch.tensor(part) for part in (x, y, weight, offset)))
    head = GaussianHead(scale="shared" if scale is None else scale)
    head.set_units(*target_statistics(rows))
    return Problem.of(head, rows, *feature_statistics(rows, True), NoPrior() if tau is None else L2Prior(tau))


def standardised(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features about their mean, the target less offset about its mean in raw units, and the weights."""
    z = ((problem.rows.x - problem.mean) / problem.scale).numpy()
    y, w = (problem.rows.y - problem.rows.offset).numpy(), problem.rows.weight.numpy()
    return z, (y - np.average(y, weights=w)) / float(problem.head.gain[0]), w


def textbook(problem: Problem, raw_scale: float) -> np.ndarray:
    """(Z'WZ + alpha I)⁻¹ Z'Wy with a matrix of the features."""
    z, y, w = standardised(problem)
    alpha = raw_scale**2 / problem.prior.scale**2
    return np.asarray(np.linalg.solve(z.T @ (w[:, None] * z) + alpha * np.eye(z.shape[1]), z.T @ (w * y)))


def weights(solution: Solution) -> np.ndarray:
    return solution.problem.split(solution.theta)[0][0].numpy()


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("scale", [0.5, 5.0])
@pytest.mark.parametrize(("n", "p"), [(2, 3), (20, 21), (20, 60), (40, 300)])
def test_a_given_scale(n: int, p: int, scale: float, tau: float) -> None:
    problem = problem_of(n, p, scale, tau)
    solution = LinearBaseline().solve(problem)
    raw = scale / float(problem.head.gain[0])
    expected = textbook(problem, raw)
    np.testing.assert_allclose(weights(solution), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    z, y, w = standardised(problem)
    ridge = Ridge(alpha=raw**2 / tau**2, solver="svd").fit(z, y, sample_weight=w)
    np.testing.assert_allclose(weights(solution), ridge.coef_, atol=1e-10 * np.abs(expected).max())
    assert solution.converged
    assert solution.is_global
    bound = excess_bound(solution)
    assert bound is not None
    assert bound < 1e-14


def test_the_bound_holds_away_from_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(20, 60, 1.0, 1.0)
    best = LeastSquares().solve(problem)
    ridge_weight = "mlefw.baseline.wide_moments.WideMoments.ridge_weight"
    generator = torch.Generator().manual_seed(0)
    for size in (1e-6, 1e-3, 0.1):
        moved = torch.from_numpy(weights(best)) + size * torch.randn(60, dtype=torch.float64, generator=generator)
        monkeypatch.setattr(ridge_weight, lambda _, __, moved=moved: moved)
        found = LeastSquares().solve(problem)
        assert found.gap is not None
        assert 0 < found.objective - best.objective <= found.gap


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_learnt_scale_of_rows_that_no_plane_fits(tau: float) -> None:
    problem = problem_of(30, 80, None, tau, repeated=True)
    z, y, w = standardised(problem)

    def value(log_scale: float) -> float:
        weight = textbook(problem, math.exp(log_scale))
        square = w @ (y - z @ weight) ** 2
        return float(
            problem.population * log_scale + square * math.exp(-2 * log_scale) / 2 + weight @ weight / 2 / tau**2
        )

    grid = np.linspace(-6, 1, 141)
    start = grid[np.argmin([value(at) for at in grid])]
    best = minimize_scalar(value, bounds=(start - 0.1, start + 0.1), method="bounded", options={"xatol": 1e-12})
    unit = float(problem.head.gain[0])
    constant = 0.5 * math.log(2 * math.pi) + math.log(unit)
    constant += 80 * math.log(tau * math.sqrt(2 * math.pi)) / problem.population
    solution = LinearBaseline().solve(problem)
    assert solution.exists
    assert solution.converged
    assert solution.objective == pytest.approx(best.fun / problem.population + constant, abs=1e-10)


@pytest.mark.parametrize("tau", [None, 1.0])
def test_a_learnt_scale_of_rows_that_are_fitted_exactly(tau: float | None) -> None:
    solution = LinearBaseline().solve(problem_of(20, 60, None, tau))
    assert solution.exists is False
    assert "fits every row exactly" in (solution.reason or "")


def test_features_too_many_to_compare_without_a_prior() -> None:
    """What cannot be told apart by a matrix of the features still says that the rows are fitted exactly."""
    problem = problem_of(20, 600, None, None)
    work = 1.01 * LeastSquares().work(problem)
    solution = LinearBaseline(max_work=work).solve(problem)
    assert solution.exists is False
    assert "fits every row exactly" in (solution.reason or "")
    assert not solution.determined
    z, y, _ = standardised(problem)
    np.testing.assert_allclose(weights(solution), np.linalg.pinv(z - z.mean(0)) @ (y - y.mean()), atol=1e-6)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            self.numel = max(self.numel, part.numel() if isinstance(part, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("scale", [1.0, None], ids=["given", "learnt"])
def test_no_matrix_of_the_features_is_formed(scale: float | None) -> None:
    """A hundredth of 2,000 rows and 50,000 features; nothing is larger than the rows themselves."""
    for p in (500, 1000):
        problem = problem_of(20, p, scale, 1.0, repeated=scale is None)
        assert is_wide(problem)
        with Largest() as largest:
            solution = LinearBaseline().solve(replace(problem))
            tables = coefficient_tables(solution, [f"x{j}" for j in range(p)], None, None)
        assert solution.converged
        assert len(tables["loc"]) == p + 1
        assert largest.numel <= 20 * (p + 1)


FULL = """
import resource, time, torch
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.l2 import L2Prior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics

generator = torch.Generator().manual_seed(0)
x = torch.randn(2000, 50_000, dtype=torch.float64, generator=generator)
y = x[:, :10].sum(1) + torch.randn(2000, dtype=torch.float64, generator=generator)
rows = Rows(x, y, torch.ones(2000).double(), torch.zeros(2000).double())
head = GaussianHead(scale=1.0)
head.set_units(*target_statistics(rows))
problem = Problem.of(head, rows, *feature_statistics(rows, True), L2Prior(0.01))
started = time.monotonic()
found = LinearBaseline(max_seconds=600).solve(problem)
assert found.converged and found.is_global and found.gap < 1e-12, found
print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


@pytest.mark.slow
def test_two_thousand_rows_of_fifty_thousand_features() -> None:
    """Thirteen seconds and 1.3 GB, 0.8 of them the rows themselves."""
    run = subprocess.run([sys.executable, "-c", FULL], check=True, capture_output=True, text=True)
    peak = float(run.stdout.split()[1])
    matrix = 2000 * 50_000 * 8 / 1e9
    assert peak <= 3 * matrix + 1, run.stdout
