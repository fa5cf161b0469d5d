"""Newton's method without a Hessian: each step by conjugate gradients, for many coefficients."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from mlefw.baseline import nonexistence
from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.canonical import is_separating
from mlefw.baseline.descent import Descent
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import is_unimodal, origin
from mlefw.baseline.work import LeftOutError, pass_work
from mlefw.prior.base import Prior
from mlefw.prior.l2 import L2Prior

_NAME = "newton with conjugate gradients"
_ENOUGH = 1e-9
"""Excess over the minimum, in nats per row, from which the descent ends."""
_COARSE = 1e-2
"""The same under the stronger priors on the way."""
_FIRST, _WEAKEST = 0.03, 30.0
"""Scales of the strongest and the weakest prior on the way, each some three times the one before."""
_NEAR = 1e-7
"""Promise of the last step, in nats per row, below which a bound is sought without a prior."""
_FLAT = 1e-9
"""Gradient and promise of a step below which a point is stationary, where no bound is known."""
_LEAST_PASSES = 60
"""Passes below which there is no use in beginning."""


class NewtonCG(Solver):
    """Truncated Newton (Nocedal & Wright, 2006, 7.1), preconditioned by a Kronecker product, to a bound of its excess.

    Under a Gaussian prior of scale τ the objective is strongly convex in the weights, so that with the biases solved
    for it exceeds its minimum by at most |gradient|² · N · τ² / 2. Without a prior the bound is a dual value (see
    `dual_gap`), where the head is a canonical one of classes; other heads have none. It comes by way of stronger
    priors, under which Newton's steps need no shortening, and ends as soon as the bound is reached or the counted work
    is spent; `gap` is the bound reached.

    Args:
        max_work: multiplications that may be spent.
    """

    def __init__(self, max_work: float) -> None:
        self.max_work = max_work

    def supports(self, problem: Problem) -> bool:
        """Convex heads without shared parameters, flat or Gaussian prior."""
        head = problem.head
        return head.convex and not head.shared_dim and (problem.prior.flat or isinstance(problem.prior, L2Prior))

    def work(self, problem: Problem) -> float:
        """What it takes to get anywhere."""
        return _LEAST_PASSES * pass_work(problem.rows.num_rows, problem.num_active, problem.head.eta_dim)

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """From `start`, or from the moments of the target.

        Without a prior the first iterate that separates the classes ends it: there is no maximum.

        Raises:
            LeftOutError: the limits were reached on the way.
        """
        descent = Descent(problem, self.max_work)
        theta = origin(problem) if start is None else _centred(problem, start)
        for scale in _on_the_way(problem.prior) if start is None else ():
            descent.turn_to(replace(problem, prior=L2Prior(scale)), theta)
            while descent.bound() > _COARSE and descent.step():
                if problem.prior.flat and is_separating(problem, descent.here.theta):
                    return _separated(problem, descent.here.theta, descent)
            theta = descent.here.theta
        descent.turn_to(problem, theta)
        gap, stopped = None, None
        try:
            gap = _without_prior(descent) if problem.prior.flat else _under_prior(descent)
        except LeftOutError as error:
            stopped = str(error)
        if problem.prior.flat and is_separating(problem, descent.here.theta):
            return _separated(problem, descent.here.theta, descent)
        if not problem.prior.flat:
            with suppress(LeftOutError):
                descent.polish()
                gap = descent.bound()
        here, size = descent.here, max(1.0, abs(descent.here.value))
        residual = float(here.gradient.abs().max())
        stationary = residual < _FLAT and descent.decrement < _FLAT
        converged = stationary if gap is None else gap <= 2 * _ENOUGH * size
        # A dual value has every probability inside (0, 1), which excludes a separation; under a Gaussian prior the
        # intercepts alone may diverge, where a class has no rows.
        missing = nonexistence.one_value(problem) or nonexistence.empty_class(problem)
        exists = True if gap is not None and missing is None else None
        return Solution(
            problem,
            _identified(problem, here.theta),
            here.value,
            residual,
            _NAME,
            descent.num_passes,
            converged=converged,
            is_global=True if converged and is_unimodal(problem) else None,
            exists=exists,
            shown_by="convex" if converged and is_unimodal(problem) else None,
            reason=None if converged else stopped,
            gap=gap,
            matrix_free=True,
        )


def _on_the_way(prior: Prior) -> Iterator[float]:
    """The scales of the priors that lead to a weaker one, or to none."""
    scale, end = _FIRST, prior.scale if isinstance(prior, L2Prior) else _WEAKEST * math.sqrt(10)
    while scale < end / 2:
        yield scale
        scale *= math.sqrt(10)


def _under_prior(descent: Descent) -> float | None:
    while (gap := descent.bound()) > _ENOUGH * max(1.0, abs(descent.here.value)) and descent.step():
        pass
    return gap


def _without_prior(descent: Descent) -> float | None:
    """The bound at the end of a descent, where one is known; it ends early where the classes are separated."""
    problem, gap = descent.problem, None
    while not is_separating(problem, descent.here.theta):
        size = max(1.0, abs(descent.here.value))
        gap = descent.dual() if descent.decrement < _NEAR * size else None
        if (gap is not None and gap <= _ENOUGH * size) or not descent.step():
            break
    return gap


def _centred(problem: Problem, theta: Tensor) -> Tensor:
    """The same distributions with weights that add up to zero where all may be shifted: those of least size."""
    table = theta.clone()
    weight = problem.split(table)[0]
    for _, columns in problem.head.shifts:
        weight[columns] -= weight[columns].mean(0)
    return table


def _identified(problem: Problem, theta: Tensor) -> Tensor:
    """The same distributions with what a shift of all columns leaves open as the problem has it."""
    table = theta.clone()
    weight, bias, _ = problem.split(table)
    for reference, columns in problem.head.shifts:
        bias[columns] -= bias[reference].clone()
        if problem.prior.flat:
            weight[columns] -= weight[reference].clone()
    return table


def _separated(problem: Problem, theta: Tensor, descent: Descent) -> Solution:
    """Every row is told right by a margin, and by a larger one further on in that direction."""
    return Solution(
        problem,
        _identified(problem, theta),
        problem.value(theta),
        float("inf"),
        _NAME,
        descent.num_passes,
        converged=False,
        exists=False,
        reason=nonexistence.separation(problem, problem.rows.num_rows),
        infimum=0.0,
        matrix_free=True,
    )
