"""The linear Gaussian model: least squares and ridge, with the scale fixed or learnt."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from mlefw.baseline import nonexistence
from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.moments import Moments, moments
from mlefw.baseline.problem import Problem
from mlefw.baseline.wide_moments import WideMoments, is_wide
from mlefw.baseline.work import MOST_DENSE, products_work, wide_work
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior

_TOLERANCE = 1e-9
"""Residual, relative to an objective above 1, below which a solution counts as converged."""
_SEARCH_ERROR = 1e-4
"""Bound on the error of a log scale found by minimising values, which resolves half the digits only."""


class LeastSquares(Solver):
    """Correlation-scaled normal equations with one refinement; QR of the rows if they are too ill-conditioned.

    With fewer rows than features the products of rows replace those of features.

    A learnt scale is √(RSS / Σ w). Under a Gaussian prior with a learnt scale the objective is not convex; it is
    minimised globally over the log scale, for each of which the best weights have a closed form.
    """

    def supports(self, problem: Problem) -> bool:
        """Whether the head is Gaussian with a constant scale, and the prior flat or Gaussian."""
        head = problem.head
        # A subclass may have another density.
        constant = type(head) is GaussianHead and head.is_linear and head.eta_names == ("loc",)
        return constant and type(problem.prior) in (NoPrior, L2Prior)

    def work(self, problem: Problem) -> float:
        """Multiplications of the products of features, or of rows if they are fewer, and of their factorisations."""
        if is_wide(problem):
            return wide_work(problem.rows.num_rows, problem.num_active)
        return products_work(problem.rows.num_rows, problem.num_active) + 10.0 * problem.num_active**3

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with the gradient of the objective as its certificate."""
        wide = is_wide(problem)
        found = WideMoments(problem) if wide else moments(problem)
        scale = _fixed_scale(problem)
        if scale is None and found.is_perfect:
            return _perfect_fit(problem, found)
        if isinstance(problem.prior, L2Prior):
            ridge = problem.prior.scale**-2
            scale = scale if scale is not None else _profile_scale(problem, found, ridge)
            weight = found.ridge_weight(scale * scale * ridge)
        else:
            weight = found.weight
            scale = scale if scale is not None else math.sqrt(found.residual_square / problem.population)
        theta = _pack(problem, found, weight, scale)
        value, gradient = problem.slope(theta)
        residual = float(gradient.abs().max())
        # With a learnt scale the objective is not convex.
        strong = isinstance(found, WideMoments) and not problem.prior.flat and not problem.head.shared_dim
        gap = _gap(problem, gradient, scale, found.mean_z) if strong else None
        small = residual if gap is None else min(residual, gap)
        converged = small < _TOLERANCE * max(1.0, abs(value)) or _is_rounding(problem, theta, gradient, scale)
        return Solution(
            problem=problem,
            theta=theta,
            objective=value,
            residual=residual,
            solver="least squares",
            num_steps=1,
            converged=converged,
            is_global=converged or None,
            exists=True,
            gap=gap,
            matrix_free=wide and problem.size > MOST_DENSE,
        )


def _fixed_scale(problem: Problem) -> float | None:
    """The fixed scale in units of the raw output; None if the scale is learnt."""
    head = problem.head
    assert isinstance(head, GaussianHead)
    return head.fixed["scale"] / float(head.gain[0]) if "scale" in head.fixed else None


def _gap(problem: Problem, gradient: Tensor, raw_scale: float, mean_z: Tensor) -> float:
    """A matrix-free bound on the excess of the objective over its minimum, under a Gaussian prior.

    With centred features the objective is a strongly convex function of the weights plus a quadratic in the bias.
    """
    assert isinstance(problem.prior, L2Prior)
    weight, bias, _ = problem.split(gradient)
    strong = 1 / (problem.population * problem.prior.scale**2)
    return float((weight[0] - bias * mean_z).square().sum()) / (2 * strong) + 0.5 * (raw_scale * float(bias)) ** 2


def _is_rounding(problem: Problem, theta: Tensor, gradient: Tensor, raw_scale: float) -> bool:
    """Whether a gradient is within the rounding error of its terms (Higham, 2002, 3.1 and 7.1).

    A residual y − Σ z θ has an error of eps times the sum of its absolute terms, which propagates to the gradient, a
    mean of z times residuals. A gradient within that error is zero for rows that differ by rounding. The entry of the
    scale is a mean of squared residuals.
    """
    weight, bias, _ = problem.split(theta)
    head, coefficients = problem.head, torch.cat([weight[0], bias]).abs()
    # Unless features are far from zero, the product is with x itself, and that with the mean is subtracted afterwards.
    mean = (problem.mean / problem.scale)[problem.active].abs() * (0.0 if problem.is_far else 1.0)
    total = torch.zeros_like(gradient)
    for rows, design, eta in problem.designs(theta):
        residual = (rows.y - eta[:, 0]).abs() / head.gain[0] / raw_scale
        size = design.abs()
        size[:, :-1] += mean
        target = (rows.y.abs() + rows.offset.abs() + head.center[0].abs()) / head.gain[0]
        terms = (target + size @ coefficients) / raw_scale
        total[: size.shape[1]] += (rows.weight * terms) @ size / raw_scale
        if head.shared_dim:
            total[-1] += float(rows.weight @ (1 + 2 * residual * terms) * head.gain[1])
    rounding = (problem.num_active + 3) * torch.finfo(torch.float64).eps * total / problem.population
    return bool((gradient.abs() <= rounding).all())


def _profile_scale(problem: Problem, found: Moments | WideMoments, ridge: float) -> float:
    """The scale that minimises the objective with the best weights for each scale.

    A stationary scale is a root mean square residual, so it lies between those of least squares and of the null model.
    A grid over that interval brackets the local minima, which are then refined.
    """
    values, q = found.spectrum
    fitted = torch.where(values > 1e-14 * values.max(), q / values.clamp(min=1e-300), torch.zeros_like(q))

    def at(variance: float) -> tuple[Tensor, float]:
        """The best weights along the eigenvectors, and their residual sum of squares."""
        weight = q / (values + variance * ridge)
        return weight, found.residual_square + float((values * (fitted - weight).square()).sum())

    def profile(log_scale: float) -> float:
        variance = math.exp(2 * log_scale)
        weight, square = at(variance)
        return problem.population * log_scale + square / (2 * variance) + 0.5 * ridge * float(weight.square().sum())

    def slope(log_scale: float) -> float:
        variance = math.exp(2 * log_scale)
        return problem.population - at(variance)[1] / variance

    low = 0.5 * math.log(found.residual_square / problem.population)
    high = max(0.5 * math.log(max(found.total_square, 1e-300) / problem.population), low)
    valley = minimize_on(profile, low, high, 400)
    # A search by values finds a flat minimum to half the digits only; the derivative has a simple zero there.
    ends = valley - _SEARCH_ERROR, valley + _SEARCH_ERROR
    return math.exp(brentq(slope, *ends, xtol=1e-16) if slope(ends[0]) < 0 < slope(ends[1]) else valley)


def minimize_on(function: Callable[[float], float], low: float, high: float, num_points: int) -> float:
    """The global minimiser on [low, high]: a grid, then Brent's method about each of its local minima."""
    grid = np.linspace(low, high, num_points)
    values = np.array([function(float(s)) for s in grid])
    best = int(values.argmin())
    candidates = [(float(values[best]), float(grid[best]))]
    for k in range(num_points):
        left, right = max(k - 1, 0), min(k + 1, num_points - 1)
        if values[k] <= values[left] and values[k] <= values[right] and grid[right] > grid[left]:
            found = minimize_scalar(
                function, bounds=(grid[left], grid[right]), method="bounded", options={"xatol": 1e-11}
            )
            candidates.append((float(found.fun), float(found.x)))
    return min(candidates)[1]


def _pack(problem: Problem, found: Moments | WideMoments, weight: Tensor, raw_scale: float) -> Tensor:
    bias = found.mean_y - float(weight @ found.mean_z)
    return problem.with_scale(torch.cat([weight, weight.new_tensor([bias])]), raw_scale)


def _perfect_fit(problem: Problem, found: Moments | WideMoments) -> Solution:
    """The solution for an exact fit: the likelihood is unbounded as the scale goes to zero."""
    spread = math.sqrt(max(found.total_square / problem.population, 0.0)) or 1e-6
    theta = _pack(problem, found, found.weight, 1e-3 * spread)
    return Solution(
        problem=problem,
        theta=theta,
        objective=problem.value(theta),
        residual=math.sqrt(found.residual_square / problem.population),
        solver="least squares",
        num_steps=1,
        exists=False,
        # With fewer rows than features and no prior many fits are exact: this is the one of least norm.
        determined=not (problem.prior.flat and is_wide(problem)),
        matrix_free=is_wide(problem) and problem.size > MOST_DENSE,
        reason=nonexistence.perfect_fit(found.total_square == 0),
    )
