"""Densities with kinks where parameters have designs and offsets of their own: linear programs, and equal models.

A location without an intercept, a scale with its own features, an offset of the log scale: rows divided by known scales
are the same model without one, with an NLL that differs by the sum of their logarithms.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline, full_weight, solve_null, solver_for
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics
from mlefw.run.placement import place, set_units, through_origin

N = 80
RANDOM = np.random.default_rng(5)
X = RANDOM.normal([1.0, -2.0], size=(N, 2))
E = RANDOM.uniform(0.5, 3, size=N)
Y = X @ [1.5, -0.7] + np.exp(0.4 * X[:, 1]) * E * RANDOM.laplace(size=N)
NO_PRIOR = NoPrior()


def problem(
    head: Head,
    x: np.ndarray,
    y: np.ndarray,
    used: list[list[int]],
    offset: np.ndarray | None = None,
    prior: Prior = NO_PRIOR,
    weight: np.ndarray | None = None,
) -> Problem:
    """The problem of a head as `build_estimand` makes it; `used` says which features and intercepts each column has."""
    made = torch.ones(len(y), dtype=torch.float64) if weight is None else torch.tensor(weight)
    shift = torch.zeros(len(y), dtype=torch.float64) if offset is None else torch.tensor(offset)
    rows = Rows(torch.tensor(x), torch.tensor(y), made, shift)
    set_units(head, rows)
    mean, scale = feature_statistics(rows, True)
    has = torch.tensor(used, dtype=torch.bool)
    mean = through_origin(head, mean, has)
    null = solve_null(Problem.of(head, rows, mean, scale, NO_PRIOR, used=has))
    return Problem.of(place(head, null), rows, mean, scale, prior, used=has)


def solved(of: Problem) -> Solution:
    found = LinearBaseline().solve(of)
    assert found.converged
    assert found.residual < 1e-8
    return found


def coefficients(of: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (eta_dim, p) and intercepts (eta_dim,) in the units of features and eta."""
    weight, bias, _ = full_weight(of)
    head, problem = of.problem.head, of.problem
    slope = head.gain[: head.eta_dim, None] * weight / problem.scale
    start = head.center[: head.eta_dim] + head.gain[: head.eta_dim] * bias - slope @ problem.mean
    return slope.numpy(), start.numpy()


def least_absolute(z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients by HiGHS."""
    n, p = z.shape
    cost = np.concatenate([np.zeros(p), weight, weight])
    bounds = [(None, None)] * p + [(0, None)] * (2 * n)
    found: np.ndarray = linprog(cost, A_eq=np.hstack([z, np.eye(n), -np.eye(n)]), b_eq=y, bounds=bounds).x[:p]
    return found


def test_absolute_deviations_through_the_origin_are_those_of_a_linear_program() -> None:
    weight = RANDOM.integers(1, 4, N).astype(float)
    found = solved(problem(LaplaceHead(), X, Y, [[1, 1, 0]], weight=weight, offset=np.sin(E)))
    assert found.is_global
    slope, start = coefficients(found)
    expected = least_absolute(X, Y - np.sin(E), weight)
    np.testing.assert_allclose(slope[0], expected, rtol=1e-9)
    assert start[0] == 0.0
    scale = weight @ np.abs(Y - np.sin(E) - X @ expected) / weight.sum()
    assert found.objective == pytest.approx(1 + np.log(2 * scale), rel=1e-12)


def test_a_location_without_any_term_is_its_offset() -> None:
    found = solved(problem(LaplaceHead(), X[:, :0], Y, [[0]], offset=X[:, 0]))
    assert found.objective == pytest.approx(1 + np.log(2 * np.abs(Y - X[:, 0]).mean()), rel=1e-12)


@pytest.mark.parametrize("head", [LaplaceHead, HuberHead], ids=["laplace", "huber"])
def test_an_offset_of_the_log_scale_is_a_division_of_rows(head: type[Head]) -> None:
    """Both are solved: with a predicted scale that is constant, and through the origin with one value for all rows."""
    shift = np.column_stack([np.zeros(N), np.log(E)])
    varied = solved(problem(head(scale="predicted"), X, Y, [[1, 1, 1], [0, 0, 1]], shift))
    divided = np.column_stack([X, np.ones(N)]) / E[:, None]
    constant = solved(problem(head(), divided, Y / E, [[1, 1, 1, 0]]))
    assert constant.is_global is not False
    assert varied.objective == pytest.approx(constant.objective + np.log(E).mean(), rel=1e-9)
    slope, start = coefficients(varied)
    np.testing.assert_allclose([*slope[0], *start[:1]], coefficients(constant)[0][0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("used", [[[1, 0, 1], [0, 1, 1]], [[1, 1, 0], [0, 1, 0]], [[1, 1, 1], [0, 0, 0]]])
def test_a_laplace_scale_with_a_design_of_its_own_is_stationary_in_both_halves(used: list[list[int]]) -> None:
    shift = np.column_stack([np.zeros(N), 0.3 * np.log(E)])
    found = solved(problem(LaplaceHead(scale="predicted"), X, Y, used, shift))
    (slope, other), (start, scale_start) = coefficients(found)
    has = np.array(used, dtype=bool)
    assert not slope[~has[0, :2]].any()
    assert not other[~has[1, :2]].any()
    z = np.column_stack([X, np.ones(N)])
    log_scale = X @ other + scale_start + shift[:, 1]
    expected = least_absolute(z[:, has[0]], Y, np.exp(-log_scale))
    np.testing.assert_allclose(np.append(slope, start)[has[0]], expected, rtol=1e-7, atol=1e-9)
    ratio = np.abs(Y - X @ slope - start) * np.exp(-log_scale)
    np.testing.assert_allclose((1 - ratio) @ z[:, has[1]], 0.0, atol=1e-6)
    assert found.objective == pytest.approx(np.mean(np.log(2) + log_scale + ratio), rel=1e-12)


@pytest.mark.parametrize("prior", [L1Prior(0.05), L2Prior(0.2), ElasticNetPrior(0.05, 0.2)], ids=["l1", "l2", "both"])
@pytest.mark.parametrize("head", [LaplaceHead(scale=2.0), HuberHead(scale=2.0)], ids=["laplace", "huber"])
def test_under_a_prior_no_other_coefficients_are_better(head: Head, prior: Prior) -> None:
    of = problem(head, X, Y, [[1, 1, 0]], prior=prior)
    found = solved(of)

    def value(free: np.ndarray) -> float:
        theta = torch.zeros(of.size, dtype=torch.float64)
        theta[of.free] = torch.from_numpy(free)
        return of.value(theta)

    best = minimize(value, found.theta[of.free].numpy() + 0.01, method="Nelder-Mead", options={"fatol": 1e-13}).fun
    assert found.objective == pytest.approx(best, abs=1e-8)
    # The constant of the prior counts the two coefficients that there are.
    expected = float(prior(of.split(found.theta)[0])) / N
    assert found.objective - of.mean_nll(found.theta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("intercept", [0, 1])
def test_an_offset_of_a_censored_laplace_density_moves_its_bounds(intercept: int) -> None:
    low, high = Y.copy(), Y.copy()
    high[::3] = np.nan
    low[1::6] = np.nan
    shift = np.cos(E)
    head = lambda: CensoredHead(LaplaceHead())  # noqa: E731
    bounds = np.column_stack([low, high])
    moved = solved(problem(head(), X, bounds, [[1, 1, intercept]], shift))
    plain = solved(problem(head(), X, bounds - shift[:, None], [[1, 1, intercept]]))
    assert moved.objective == pytest.approx(plain.objective, rel=1e-8)
    np.testing.assert_allclose(coefficients(moved)[0], coefficients(plain)[0], rtol=1e-5)


def test_designs_of_parameters_are_the_full_design_with_columns_of_zeros() -> None:
    """A column of zeros for every parameter, in place of a mask."""
    masked = solved(problem(LaplaceHead(scale="predicted"), X, Y, [[1, 1, 1], [1, 1, 1]]))
    wider = np.column_stack([X, RANDOM.normal(size=N)])
    with_more = solved(problem(LaplaceHead(scale="predicted"), wider, Y, [[1, 1, 0, 1], [1, 1, 0, 1]]))
    assert with_more.objective == pytest.approx(masked.objective, rel=1e-10)


def test_kinked_heads_keep_their_solvers_with_terms() -> None:
    """Newton's method stops at kinks, and would call an estimate certified that is none."""
    names = {
        "LeastAbsolute": problem(LaplaceHead(), X, Y, [[1, 1, 0]]),
        "VaryingLaplace": problem(LaplaceHead(scale="predicted"), X, Y, [[1, 1, 1], [0, 1, 1]]),
        "Kinked": problem(HuberHead(), X, Y, [[1, 1, 0]]),
    }
    assert {type(solver_for(of)).__name__: of for of in names.values()}.keys() == names.keys()
    for of in names.values():
        assert not of.is_plain
