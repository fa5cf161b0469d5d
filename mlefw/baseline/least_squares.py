"""The linear Gaussian model: least squares and ridge, with the scale fixed or learnt."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.l2 import L2Prior

_PERFECT = 1e-24
"""Share of the target's variance below which a residual sum of squares is rounding."""


class LeastSquares(Solver):
    """Correlation-scaled normal equations with one refinement; QR of the rows where they are too ill-conditioned.

    A learnt scale is √(RSS / Σ w). Under a Gaussian prior with a learnt scale the objective is not convex: it is
    minimised over log scale, along which the best weights are known in closed form, so the optimum is global.
    """

    def supports(self, problem: Problem) -> bool:
        """Gaussian head with a constant scale, flat or Gaussian prior."""
        head = problem.head
        constant = isinstance(head, GaussianHead) and head.eta_names == ("loc",)
        return constant and (problem.prior.flat or isinstance(problem.prior, L2Prior))

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with the gradient of the objective as its certificate."""
        moments = _moments(problem)
        floor = _PERFECT * moments.total_square
        scale = _fixed_scale(problem)
        if scale is None and moments.residual_square <= floor:
            return _perfect_fit(problem, moments)
        if isinstance(problem.prior, L2Prior):
            ridge = moments.population_ratio(problem.prior.scale)
            scale = scale if scale is not None else _profile_scale(problem, moments, ridge)
            weight = moments.ridge_weight(scale * scale * ridge)
        else:
            weight = moments.weight
            scale = scale if scale is not None else math.sqrt(moments.residual_square / problem.population)
        theta = _pack(problem, moments, weight, scale)
        if problem.head.shared_dim and not problem.prior.flat:
            # The search finds the valley; a minimum is flat, so its bottom is known to half the digits only.
            theta = Newton(max_steps=5).solve_from(problem, theta).theta
        residual = float(problem.gradient(theta).abs().max())
        value = problem.value(theta)
        return Solution(
            problem=problem,
            theta=theta,
            objective=value,
            residual=residual,
            solver="least squares",
            num_steps=1,
            converged=residual < 1e-9 * max(1.0, abs(value)) * (1 + 1e-7 * abs(moments.origin)),
        )


@dataclass(frozen=True)
class _Moments:
    """Weighted moments of z and of the target in raw units, about their means, and the least squares fit."""

    mean_z: Tensor
    mean_y: float
    gram: Tensor
    cross: Tensor
    total_square: float
    residual_square: float
    weight: Tensor
    origin: float
    """Mean of the raw target in units of its spread: how many digits its deviations have lost already."""

    @staticmethod
    def population_ratio(prior_scale: float) -> float:
        """1 / scale²: times the noise variance, what ridge adds to the diagonal of the Gram matrix."""
        return 1.0 / (prior_scale * prior_scale)

    def ridge_weight(self, alpha: float) -> Tensor:
        """Argmin ½ Σ w r² + ½ alpha |weight|²."""
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype)
        factor = torch.linalg.cholesky(self.gram + alpha * identity)
        return torch.cholesky_solve(self.cross.unsqueeze(1), factor).squeeze(1)


def _target(problem: Problem, y: Tensor, offset: Tensor) -> Tensor:
    """The target in units of the raw output."""
    return (y - offset - problem.head.center[0]) / problem.head.gain[0]


def _moments(problem: Problem) -> _Moments:
    p, total = problem.num_active, problem.population
    mean_z, mean_y = torch.zeros(p, dtype=torch.float64), 0.0
    for rows in problem.rows.blocks(problem.block):
        mean_z += rows.weight @ problem.design(rows)[:, :-1] / total
        mean_y += float(rows.weight @ _target(problem, rows.y, rows.offset)) / total
    gram, cross, square = torch.zeros(p, p, dtype=torch.float64), torch.zeros(p, dtype=torch.float64), 0.0
    for rows in problem.rows.blocks(problem.block):
        z, y = problem.design(rows)[:, :-1] - mean_z, _target(problem, rows.y, rows.offset) - mean_y
        weighted = rows.weight.unsqueeze(1) * z
        gram += z.T @ weighted
        cross += weighted.T @ y
        square += float(rows.weight @ y.square())
    weight = _least_squares(problem, gram, cross, mean_z, mean_y)
    residual = 0.0
    for rows in problem.rows.blocks(problem.block):
        z, y = problem.design(rows)[:, :-1] - mean_z, _target(problem, rows.y, rows.offset) - mean_y
        residual += float(rows.weight @ (y - z @ weight).square())
    center = float((problem.rows.weight @ problem.rows.y.double()) / total)
    origin = center / (float(problem.head.gain[0]) * math.sqrt(square / total) or 1.0)
    return _Moments(mean_z, mean_y, gram, cross, square, residual, weight, origin)


def _least_squares(problem: Problem, gram: Tensor, cross: Tensor, mean_z: Tensor, mean_y: float) -> Tensor:
    if not problem.num_active:
        return cross
    root = gram.diagonal().clamp(min=1e-300).rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * gram * root)
    if bool(failed) or float(factor.diagonal().min()) < 1e-4:
        return _by_qr(problem, mean_z, mean_y)

    def solve(right: Tensor) -> Tensor:
        return root * torch.cholesky_solve((root * right).unsqueeze(1), factor).squeeze(1)

    weight = solve(cross)
    left = torch.zeros_like(cross)
    for rows in problem.rows.blocks(problem.block):
        z, y = problem.design(rows)[:, :-1] - mean_z, _target(problem, rows.y, rows.offset) - mean_y
        left += z.T @ (rows.weight * (y - z @ weight))
    return weight + solve(left)


def _by_qr(problem: Problem, mean_z: Tensor, mean_y: float) -> Tensor:
    root = problem.rows.weight.sqrt()
    z = root.unsqueeze(1) * (problem.design(problem.rows)[:, :-1] - mean_z)
    y = root * (_target(problem, problem.rows.y, problem.rows.offset) - mean_y)
    # gelsd: minimum norm, so that columns without rank (under a prior, say) still give the least residual.
    return torch.linalg.lstsq(z, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)


def _fixed_scale(problem: Problem) -> float | None:
    """The given scale in units of the raw output, or None where it is learnt."""
    head = problem.head
    assert isinstance(head, GaussianHead)
    return head.fixed["scale"] / float(head.gain[0]) if "scale" in head.fixed else None


def _profile_scale(problem: Problem, moments: _Moments, ridge: float) -> float:
    """The scale that minimises the objective with the best weights for each scale.

    A stationary scale is a root mean square residual, so it lies between those of least squares and of the null
    model: a grid over that interval finds every valley, the refinement its bottom.
    """
    values, vectors = torch.linalg.eigh(moments.gram)
    values = values.clamp(min=0)
    q = vectors.T @ moments.cross
    fitted = torch.where(values > 1e-14 * values.max(), q / values.clamp(min=1e-300), torch.zeros_like(q))

    def profile(log_scale: float) -> float:
        variance = math.exp(2 * log_scale)
        alpha = variance * ridge
        weight = q / (values + alpha)
        square = moments.residual_square + float((values * (fitted - weight).square()).sum())
        return problem.population * log_scale + square / (2 * variance) + 0.5 * ridge * float(weight.square().sum())

    low = 0.5 * math.log(moments.residual_square / problem.population)
    high = max(0.5 * math.log(max(moments.total_square, 1e-300) / problem.population), low)
    return math.exp(minimize_on(profile, low, high, 400))


def minimize_on(function: Callable[[float], float], low: float, high: float, num_points: int) -> float:
    """The global minimiser on [low, high]: a grid, then Brent's method in each of its valleys."""
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


def _pack(problem: Problem, moments: _Moments, weight: Tensor, raw_scale: float) -> Tensor:
    bias = moments.mean_y - float(weight @ moments.mean_z)
    return problem.with_scale(torch.cat([weight, weight.new_tensor([bias])]), raw_scale)


def _perfect_fit(problem: Problem, moments: _Moments) -> Solution:
    """The fit itself is exact, but its scale is not: the likelihood grows without bound as it goes to zero."""
    spread = math.sqrt(max(moments.total_square / problem.population, 0.0)) or 1e-6
    what = "the target is constant" if moments.total_square == 0 else "the linear model fits every row exactly"
    theta = _pack(problem, moments, moments.weight, 1e-3 * spread)
    return Solution(
        problem=problem,
        theta=theta,
        objective=problem.value(theta),
        residual=math.sqrt(moments.residual_square / problem.population),
        solver="least squares",
        num_steps=1,
        exists=False,
        reason=f"{what}: the likelihood is unbounded as scale goes to 0",
    )
