"""Newton steps of a linear problem by preconditioned conjugate gradients, and bounds on the excess of a point."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.canonical import dual_gap
from mlefw.baseline.kronecker import preconditioner
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import LeftOutError, pass_work, products_work
from mlefw.prior.l2 import L2Prior

_SHARP = 1e-12
"""Gradient of the biases below which they count as solved for."""
_ROUGH, _EXACT = 0.1, 1e-6
"""Relative error of conjugate gradients in a step of the descent, and in one for a bound."""
_MOST_STEPS = 500
"""Most conjugate gradient steps within a Newton step."""
_MOST_CACHED = 2**24
"""Most eta values that are kept between passes."""


class Point(NamedTuple):
    """Theta, its objective and gradient."""

    theta: Tensor
    value: float
    gradient: Tensor


class Descent:
    """A descent within a number of multiplications, which may change its prior along the way.

    Attributes:
        here: the present point.
        num_passes: number of passes over the rows so far.
        is_stopped: asked at each pass, whether the descent is to end; it then ends as one whose work is spent.
        decrement: squared Newton decrement at the last step: twice its predicted gain, in nats per row.
    """

    def __init__(self, problem: Problem, max_work: float) -> None:
        self.problem, self.max_work, self.num_passes = problem, max_work, 0
        self._unit = pass_work(problem.rows.num_rows, problem.num_active, problem.head.eta_dim)
        self._spent = products_work(problem.rows.num_rows, problem.num_active)
        self._precondition = preconditioner(problem)
        self._etas: list[Tensor] = []
        self.here: Point
        self.is_stopped: Callable[[], bool] | None = None

    def turn_to(self, problem: Problem, theta: Tensor) -> None:
        """Continue with another problem, which differs in its prior only, from theta."""
        self.problem = problem
        self._first, self.decrement = 0.0, float("inf")
        self._precondition.adapt(problem, theta)
        self._arrive(theta)

    def bound(self) -> float:
        """A bound on the excess of the objective over its minimum, in nats per row, under a Gaussian prior."""
        prior, gradient = self.problem.prior, self.here.gradient
        assert isinstance(prior, L2Prior)
        weight, bias, _ = self.problem.split(gradient)
        strong = 1 / (self.problem.population * prior.scale**2)
        # The error of the biases contributes what one more Newton step in them would gain.
        alone = torch.zeros_like(gradient)
        self.problem.split(alone)[1].copy_(bias)
        return float(weight.square().sum()) / (2 * strong) + float(alone @ self._precondition(alone))

    def dual(self) -> float | None:
        """The dual bound on the excess without a prior, in nats per row; None if there is none."""
        step = self._solve(_EXACT)
        left = self.here.gradient + self._times(step)
        return dual_gap(self.problem, self.here.theta, step, left)

    def step(self) -> bool:
        """Take a damped Newton step; False if the objective does not decrease any more."""
        here = self.here
        self._precondition.adapt(self.problem, here.theta)
        direction = self._solve(_ROUGH)
        decrement = self.decrement = -float(here.gradient @ direction)
        length = 1.0
        while decrement > 0 and length > 1e-6:
            theta = here.theta + length * direction
            resolved = decrement > 1e-13 * max(1.0, abs(here.value))
            self._spend(0.5)
            if not resolved or self.problem.value(theta) <= here.value - 1e-4 * length * decrement:
                self._arrive(theta)
                if resolved or float(self.here.gradient.norm()) < float(here.gradient.norm()):
                    return True
                self.here = here
                break
            length /= 2
        return False

    def polish(self) -> None:
        """Solve for the biases at fixed weights, as `bound` assumes; these few passes ignore the limits."""
        self.unlimited()
        for _ in range(8):
            bias = self.problem.split(self.here.gradient)[1]
            if float(bias.abs().max()) <= _SHARP:
                break
            theta = self.here.theta.clone()
            self.problem.split(theta)[1].sub_(self._bias_step(bias))
            self._arrive(theta)

    def unlimited(self) -> None:
        """Ignore the limits of work and time from now on."""
        self.max_work, self.is_stopped, self.problem = float("inf"), None, replace(self.problem, meter=None)

    def _bias_step(self, gradient: Tensor) -> Tensor:
        """The Newton step in the biases only, (eta_dim,), from a Hessian product with each of their unit vectors."""
        columns = []
        for k in range(len(gradient)):
            unit = torch.zeros_like(self.here.theta)
            self.problem.split(unit)[1][k] = 1.0
            columns.append(self.problem.split(self._times(unit))[1])
        return torch.linalg.pinv(torch.stack(columns, 1), hermitian=True) @ gradient

    def _solve(self, forcing: float) -> Tensor:
        """Approximately −H⁻¹ gradient by preconditioned conjugate gradients, more accurate near the optimum."""
        left = -self.here.gradient
        step, move = torch.zeros_like(left), self._precondition(left)
        size = float(left @ move)
        self._first = self._first or size
        goal = min(forcing**2, (size / self._first) ** 0.5) * size if size > 0 else 0.0
        for _ in range(_MOST_STEPS):
            if size <= goal:
                break
            product = self._times(move)
            curvature = float(move @ product)
            if not curvature > 0:
                break
            step = step + size / curvature * move
            left = left - size / curvature * product
            smooth = self._precondition(left)
            before, size = size, float(left @ smooth)
            move = smooth + size / before * move
        return step

    def _arrive(self, theta: Tensor) -> None:
        self._spend(1.0)
        self._etas = []
        self.here = Point(theta, *self.problem.slope(theta))

    def _times(self, direction: Tensor) -> Tensor:
        """The Hessian at the present point times a direction, (size,)."""
        self._spend(1.0)
        theta, problem = self.here.theta, self.problem
        if not self._etas and problem.rows.num_rows * problem.head.eta_dim <= _MOST_CACHED:
            self._etas = [eta for _, _, eta in problem.etas(theta)]
        return problem.curvature_times(theta, direction, self._etas)

    def _spend(self, passes: float) -> None:
        self._spent += passes * self._unit
        self.num_passes += 1
        if self._spent > self.max_work:
            raise LeftOutError(f"it was stopped after baseline.max_work={self.max_work:g} multiplications")
        if self.is_stopped is not None and self.is_stopped():
            raise LeftOutError("it was stopped by Ctrl-C")
        if self.problem.meter is not None:
            self.problem.meter.tell(lambda: f"pass {self.num_passes}")
