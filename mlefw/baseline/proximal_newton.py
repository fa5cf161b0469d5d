"""Proximal Newton method for priors with a kink at zero, which gives estimates with exact zeros."""

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.derivatives import Derivatives
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import starts

_TOLERANCE = 1e-10
"""Residual, relative to an objective above 1, below which a point counts as stationary."""


class ProximalNewton(Solver):
    """Newton's quadratic model plus the kinked part of the prior, minimised exactly (Lee, Sun & Saunders, 2014).

    A sweep of coordinate descent finds which coefficients are zero, and a linear solve gives the others, in turn until
    a sweep changes nothing. With a learnt scale the objective is not convex: descents start from several scales below
    that of the null model, and the best end is kept.
    """

    takes_terms: ClassVar = True

    def __init__(self, max_steps: int = 100) -> None:
        self.max_steps = max_steps

    def supports(self, problem: Problem) -> bool:
        """Whether the prior has a term in |w|; the density must be twice differentiable, which is not checked."""
        return problem.prior.rate > 0

    def solve(self, problem: Problem) -> Solution:
        """The best solution over all starts."""
        ends = [self.solve_from(problem, start) for start in starts(problem, (-1.0, -2.0, -4.0))]
        return min(ends, key=lambda end: (not end.converged, math.isnan(end.objective), end.objective))

    def solve_from(self, problem: Problem, theta: Tensor) -> Solution:
        """The solution of a descent from theta."""
        here, value = problem.derivatives(theta), problem.value(theta)
        steps = 0
        while steps < self.max_steps:
            steps += 1
            if not bool(torch.isfinite(here.gradient).all() and torch.isfinite(here.hessian).all()):
                break
            residual = optimality(problem, theta, here.gradient)
            target = self._minimise_model(problem, theta, here)
            if not bool(torch.isfinite(target).all()):
                break
            change = target - theta
            predicted = float(here.gradient @ change) + _kinked_part(problem, target) - _kinked_part(problem, theta)
            # A predicted gain below rounding of the objective cannot be tested by it, but by the residual.
            if predicted > -1e-15 * max(1.0, abs(value)):
                there = problem.derivatives(target)
                if optimality(problem, target, there.gradient) < residual:
                    theta, here = target, there
                    continue
                break
            found = _search(problem, theta, change, value, predicted)
            if found is None:
                break
            theta = found
            here, value = problem.derivatives(theta), problem.value(theta)
        residual = optimality(problem, theta, here.gradient)
        value = problem.value(theta)
        return Solution(
            problem=problem,
            theta=theta,
            objective=value,
            residual=residual,
            solver="proximal newton",
            num_steps=steps,
            converged=residual < _TOLERANCE * max(1.0, abs(value)),
        )

    def _minimise_model(self, problem: Problem, theta: Tensor, here: Derivatives) -> Tensor:
        model = _Model(_convex(problem, theta, here), here.gradient.numpy().copy(), theta.numpy().copy(), problem)
        # Near a perfect fit a slope may overflow: the caller refuses the step then.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(100):
                if not 1e-15 <= model.sweep() < math.inf:
                    break
                model.settle()
        return torch.from_numpy(model.point)


class _Model:
    """The quadratic model plus the prior's kink; `slope` is the gradient of the quadratic at `point`."""

    def __init__(self, hessian: np.ndarray, slope: np.ndarray, point: np.ndarray, problem: Problem) -> None:
        self.hessian, self.slope, self.point = hessian, slope, point
        self.diagonal = np.maximum(hessian.diagonal(), 1e-12)
        self.free = problem.free.numpy()
        self.threshold = np.where(under_prior(problem), problem.prior.rate / problem.population, 0.0)

    def sweep(self) -> float:
        """Minimise over each coordinate in turn; returns the largest change, times the root of its curvature."""
        largest = 0.0
        for j in np.flatnonzero(self.free).tolist():
            aim = self.point[j] - self.slope[j] / self.diagonal[j]
            size = abs(aim) - self.threshold[j] / self.diagonal[j]
            change = (math.copysign(size, aim) if size > 0 else 0.0) - self.point[j]
            if change != 0.0:
                self._move(j, change)
                largest = max(largest, abs(change) * self.diagonal[j] ** 0.5)
        return largest

    def settle(self) -> None:
        """Minimise over all nonzero coordinates jointly; a coordinate that would change its sign is set to zero."""
        for _ in range(len(self.point)):
            active = np.flatnonzero(self.free & ((self.threshold == 0) | (self.point != 0)))
            sign = np.sign(self.point[active]) * self.threshold[active]
            try:
                step = np.linalg.solve(self.hessian[np.ix_(active, active)], -(self.slope[active] + sign))
            except np.linalg.LinAlgError:
                return
            now = self.point[active]
            crossing = (self.threshold[active] > 0) & (np.sign(now + step) != np.sign(now))
            if not np.isfinite(step).all():
                return
            shares = np.where(crossing, now / np.where(crossing, -step, 1.0), np.inf)
            first = int(shares.argmin())
            length = min(1.0, float(shares[first]))
            self._move(active, length * step)
            if length == 1.0:
                return
            self.point[active[first]] = 0.0

    def _move(self, index: int | np.ndarray, change: float | np.ndarray) -> None:
        self.point[index] += change
        self.slope += (
            self.hessian[:, index] @ change if isinstance(index, np.ndarray) else self.hessian[:, index] * change
        )


def optimality(problem: Problem, theta: Tensor, gradient: Tensor) -> float:
    """Largest entry of |theta − prox(theta − gradient)|, which is zero exactly at a stationary point."""
    moved = theta - gradient
    weights = torch.from_numpy(under_prior(problem))
    moved[weights] = problem.prior.prox(moved[weights], 1.0 / problem.population)
    return float((theta - moved)[problem.free].abs().max())


def under_prior(problem: Problem) -> np.ndarray:
    """Whether each entry of theta is a weight, which the prior applies to, (size,)."""
    mask = torch.zeros(problem.size, dtype=torch.bool)
    problem.split(mask)[0].fill_(True)
    return mask.numpy()


def _kinked_part(problem: Problem, theta: Tensor) -> float:
    """The part of −log prior with a kink, per observation, up to a constant."""
    weights = problem.split(theta)[0]
    return float(problem.prior(weights) - problem.prior.smooth_part(weights)) / problem.population


def _convex(problem: Problem, theta: Tensor, here: Derivatives) -> np.ndarray:
    """The Hessian if positive semidefinite, else expected information, else the Hessian with absolute eigenvalues."""
    for expected in (False, True):
        try:
            hessian = problem.derivatives(theta, expected=True).hessian if expected else here.hessian
            if not bool(torch.isfinite(hessian).all()):
                continue
        except NotImplementedError:
            break
        values = torch.linalg.eigvalsh(hessian)
        if float(values.min()) >= -1e-12 * float(values.max()):
            return np.asarray(hessian.numpy())
    values, vectors = torch.linalg.eigh(here.hessian)
    return np.asarray((vectors * values.abs() @ vectors.T).numpy())


def _search(problem: Problem, theta: Tensor, change: Tensor, value: float, predicted: float) -> Tensor | None:
    length = 1.0
    for _ in range(50):
        target = theta + length * change
        if problem.value(target) <= value + 1e-4 * length * predicted:
            return target
        length /= 2
    return None
