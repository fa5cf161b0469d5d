"""Profile likelihood intervals: where the log-likelihood, maximised over all else, is within χ²/2 of its maximum."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.derivatives import Derivatives
from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.linear import solver_for
from mlefw.baseline.newton import Newton, absolute_solve, positive_solve
from mlefw.baseline.problem import Problem
from mlefw.distribution.reference import normal_quantile

_EXACT = 1e-10
"""Distance of a signed root from its target, in standard errors, at which an end is found."""
_DECREMENT = 1e-11
"""Nats of all rows that an inner refit leaves to gain."""
_MOST_STEPS, _MOST_ROOTS = 100, 60
_FLAT = 1e-7
"""Nats that its slope adds over the whole distance from the estimate, below which a profile has levelled off."""
_FEWEST_DOUBLINGS = 8
"""Doublings of the first step before a profile that has levelled off is taken to stay level for ever."""


@dataclass
class _Point:
    """The best point with a given value of the parameter, with the derivatives there."""

    value: float
    theta: Tensor
    here: Derivatives
    root: float
    slope: float


class Profile:
    """Profiles linear functions c'theta of the parameters of an estimate without a prior.

    An estimate that does not exist, since the likelihood grows for ever along some direction, has profiles all the
    same: they are measured from the supremum, and an end may be infinite.

    Args:
        solution: the estimate, or the last point of a descent where there is only an infimum of the NLL.
        level: probability of the intervals.
    """

    def __init__(self, solution: Solution, level: float = 0.95) -> None:
        self.problem, self.theta = solution.problem, solution.theta
        self.free = self.problem.free
        self.lowest = solution.objective if solution.may_exist else solution.infimum
        self.target = float(normal_quantile(0.5 + level / 2))

    def interval(self, direction: Tensor, error: float | None) -> tuple[float, float]:
        """Both ends of the interval of c'theta; an end is infinite where the profile levels off below the bound.

        Args:
            direction: c, (size,).
            error: a standard error, for the first step; None where there is none.
        """
        path = _Path(self.problem, direction, self.free)
        value = float(direction @ self.theta)
        start = self._point(path, value, self.theta, self.problem.derivatives(self.theta))
        step = self.target * error if error else max(0.1, 0.05 * abs(value))
        return self._end(path, start, -step), self._end(path, start, step)

    def _point(self, path: "_Path", value: float, theta: Tensor, here: Derivatives) -> _Point:
        """The refit at a value of the parameter from a start that has that value."""
        theta, here = path.descend(theta, here)
        assert self.lowest is not None
        n = self.problem.population
        excess = max(here.value - self.lowest, 0.0)
        return _Point(value, theta, here, math.sqrt(2 * n * excess), n * path.multiplier(here))

    def _move(self, path: "_Path", point: _Point, value: float) -> _Point:
        """The refit at another value, from the point along its path."""
        theta = path.moved(point.theta, point.here, value - point.value)
        here = self.problem.derivatives(theta)
        if not math.isfinite(here.value):
            theta = path.moved(point.theta, None, value - point.value)
            here = self.problem.derivatives(theta)
        return self._point(path, value, theta, here)

    def _end(self, path: "_Path", start: _Point, step: float) -> float:
        """The end on the side of `step`: doublings until the bound is passed, then Newton's method within brackets."""
        inside, first = start, step
        for doubling in range(_MOST_ROOTS):
            outside = self._move(path, inside, start.value + step)
            if not math.isfinite(outside.root) or outside.root > self.target:
                return self._between(path, inside, outside)
            inside = outside
            gain = outside.slope * math.copysign(1.0, first) * abs(outside.value - start.value)
            if doubling >= _FEWEST_DOUBLINGS and gain < _FLAT:
                return math.copysign(math.inf, first)
            step *= 2
        return math.copysign(math.inf, first)

    def _between(self, path: "_Path", inside: _Point, outside: _Point) -> float:
        """The value at which the signed root meets its target, between a point below and one above it."""
        near = outside if math.isfinite(outside.root) else inside
        for _ in range(_MOST_ROOTS):
            low, high = sorted((inside.value, outside.value))
            # The signed root is nearly linear in the parameter: its derivative is slope / root.
            value = near.value - (near.root - self.target) * near.root / near.slope if near.slope and near.root else low
            if not low < value < high:
                value = (low + high) / 2
            if value in (low, high):
                break
            near = self._move(path, near, value)
            if abs(near.root - self.target) < _EXACT:
                break
            if math.isfinite(near.root) and near.root < self.target:
                inside = near
            else:
                outside = near
        return near.value


class _Path:
    """The points with a given value of c'theta, in the other free parameters: the one of largest |c| follows from them.

    Args:
        problem: the problem.
        direction: c, (size,).
        free: whether each entry of theta is free, (size,).
    """

    def __init__(self, problem: Problem, direction: Tensor, free: Tensor) -> None:
        self.problem, self.pivot = problem, int((direction.abs() * free).argmax())
        others = free.clone()
        others[self.pivot] = False
        self.others, self.weight = others, float(direction[self.pivot])
        self.follows = -direction[others] / self.weight

    def spread(self, step: Tensor) -> Tensor:
        """A step of the other parameters as one of theta that keeps c'theta, (size,)."""
        whole = torch.zeros(self.problem.size, dtype=torch.float64)
        whole[self.others] = step
        whole[self.pivot] = self.follows @ step
        return whole

    def reduced(self, here: Derivatives) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian in the other parameters."""
        g, h, o, p, f = here.gradient, here.hessian, self.others, self.pivot, self.follows
        cross = torch.outer(h[o, p], f)
        return g[o] + g[p] * f, h[o][:, o] + cross + cross.T + h[p, p] * torch.outer(f, f)

    def multiplier(self, here: Derivatives) -> float:
        """The slope of the profile, in nats per observation and unit of c'theta."""
        return float(here.gradient[self.pivot]) / self.weight

    def moved(self, theta: Tensor, here: Derivatives | None, by: float) -> Tensor:
        """Theta with c'theta changed; with derivatives the others follow to first order."""
        ahead = torch.zeros_like(theta)
        ahead[self.pivot] = 1 / self.weight
        if here is not None and bool(self.others.any()):
            across = here.hessian @ ahead
            step = positive_solve(self.reduced(here)[1], across[self.others] + across[self.pivot] * self.follows)
            ahead = ahead if step is None else ahead - self.spread(step)
        return theta + by * ahead

    def descend(self, theta: Tensor, here: Derivatives) -> tuple[Tensor, Derivatives]:
        """The minimum over the other parameters by damped Newton steps."""
        if not bool(self.others.any()):
            return theta, here
        for _ in range(_MOST_STEPS):
            gradient, hessian = self.reduced(here)
            if not bool(torch.isfinite(gradient).all()):
                break
            step = positive_solve(hessian, gradient)
            step = absolute_solve(hessian, gradient) if step is None else step
            decrement = float(gradient @ step)
            if not decrement * self.problem.population > _DECREMENT:
                break
            found = self._search(theta, self.spread(-step), here, decrement)
            if found is None:
                break
            theta, here = found
        return theta, here

    def _search(
        self, theta: Tensor, direction: Tensor, here: Derivatives, decrement: float
    ) -> tuple[Tensor, Derivatives] | None:
        """The first of halved steps that lowers the objective enough, or None."""
        length = 1.0
        for _ in range(40):
            target = theta + length * direction
            # Below the rounding of the objective a full step is taken on trust in the gradient.
            if self.problem.value(target) <= here.value - 1e-4 * length * decrement + 1e-15 * max(1.0, abs(here.value)):
                return target, self.problem.derivatives(target)
            length /= 2
        return None


def not_profiled(solution: Solution) -> str | None:
    """Why an estimate has no profile likelihood intervals, or None."""
    problem = solution.problem
    if not problem.prior.flat:
        return "intervals under a prior are those of its posterior"
    if solution.smoothing is not None and not solution.smoothing.is_penalised:
        return "profiles of a marginal likelihood are not followed"
    if not solution.may_exist and (solution.infimum is None or not math.isfinite(solution.infimum)):
        return "the likelihood is not bounded"
    if solution.may_exist and not solution.converged:
        return "the estimate is not certified"
    if solution.matrix_free or solution.parts:
        return "there are too many coefficients" if solution.matrix_free else "there are several targets"
    if not isinstance(solver_for(problem), Newton | LeastSquares):
        return "the density has kinks"
    return None
