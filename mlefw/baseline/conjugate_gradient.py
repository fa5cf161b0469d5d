"""Newton's method with steps by conjugate gradients, for too many coefficients to form a Hessian."""

import math
from collections.abc import Iterator
from contextlib import nullcontext, suppress
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
from mlefw.system.signals import stoppable

_NAME = "newton with conjugate gradients"
_ENOUGH = 1e-9
"""Excess over the minimum, in nats per row, at which the descent ends."""
_COARSE = 1e-2
"""Excess, in nats per row, at which the descent under an intermediate prior ends."""
_FIRST, _WEAKEST = 0.03, 30.0
"""Scales of the strongest and the weakest intermediate prior; successive scales differ by a factor √10."""
_NEAR = 1e-7
"""Newton decrement, in nats per row, below which a dual bound is computed without a prior."""
_FLAT = 1e-9
"""Gradient and Newton decrement below which a point counts as stationary, if there is no bound."""
_LEAST_PASSES = 60
"""Fewest passes over the rows that can be expected."""


class NewtonCG(Solver):
    """Truncated Newton method (Nocedal & Wright, 2006, 7.1) with a Kronecker preconditioner and a bound on its excess.

    Under a Gaussian prior of scale τ the objective is strongly convex in the weights, so that with the biases solved
    for, it exceeds its minimum by at most |gradient|² · N · τ² / 2. Without a prior there is a dual bound (see
    `dual_gap`) for classes with the logit link, and none for other heads. The descent passes through a sequence of
    weaker and weaker priors, under which full Newton steps are accepted. It ends once the bound is small enough or the
    work is spent; `gap` is the bound reached.

    Args:
        max_work: most multiplications to spend.
    """

    def __init__(self, max_work: float) -> None:
        self.max_work = max_work

    def supports(self, problem: Problem) -> bool:
        """Whether the head is convex without shared parameters, and the prior flat or Gaussian."""
        head = problem.head
        return head.convex and not head.shared_dim and (problem.prior.flat or isinstance(problem.prior, L2Prior))

    def work(self, problem: Problem) -> float:
        """Multiplications of the fewest passes that can be expected."""
        return _LEAST_PASSES * pass_work(problem.rows.num_rows, problem.num_active, problem.head.eta_dim)

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """The estimate, by a descent from `start` or from the null model.

        Without a prior the descent ends at the first iterate that separates the classes: there is no maximum then.

        Raises:
            LeftOutError: the work was spent under an intermediate prior.
        """
        # Of arrays a first Ctrl-C ends the estimate with the bound reached; of tables it ends the command.
        with nullcontext() if problem.features is None else stoppable() as is_stopped:
            descent = Descent(problem, self.max_work)
            descent.is_stopped = is_stopped
            return self._descended(problem, descent, start)

    def _descended(self, problem: Problem, descent: Descent, start: Tensor | None) -> Solution:
        gap, stopped = None, None
        try:
            theta = origin(problem) if start is None else _centred(problem, start)
            for scale in _intermediate_scales(problem.prior) if start is None else ():
                descent.turn_to(replace(problem, prior=L2Prior(scale)), theta)
                while descent.bound() > _COARSE and descent.step():
                    if problem.prior.flat and is_separating(problem, descent.here.theta):
                        return _separated(problem, descent.here.theta, descent)
                theta = descent.here.theta
            descent.turn_to(problem, theta)
            gap = _without_prior(descent) if problem.prior.flat else _under_prior(descent)
        except LeftOutError as error:
            if descent.problem.prior is not problem.prior:
                if problem.features is None or problem.prior.flat or descent.num_passes < 2:
                    raise
                descent.unlimited()
                descent.turn_to(replace(problem, meter=None), descent.here.theta)
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
        # A dual point has all probabilities inside (0, 1), which excludes separation. Under a Gaussian prior only
        # intercepts may diverge, if a class has no rows.
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


def _intermediate_scales(prior: Prior) -> Iterator[float]:
    """The scales of the intermediate priors, up to the given prior's, or to the weakest if it is flat."""
    scale, end = _FIRST, prior.scale if isinstance(prior, L2Prior) else _WEAKEST * math.sqrt(10)
    while scale < end / 2:
        yield scale
        scale *= math.sqrt(10)


def _under_prior(descent: Descent) -> float | None:
    while (gap := descent.bound()) > _ENOUGH * max(1.0, abs(descent.here.value)) and descent.step():
        pass
    return gap


def _without_prior(descent: Descent) -> float | None:
    """The dual bound at the end of a descent, None if there is none; it ends early if the classes are separated."""
    problem, gap = descent.problem, None
    while not is_separating(problem, descent.here.theta):
        size = max(1.0, abs(descent.here.value))
        gap = descent.dual() if descent.decrement < _NEAR * size else None
        if (gap is not None and gap <= _ENOUGH * size) or not descent.step():
            break
    return gap


def _centred(problem: Problem, theta: Tensor) -> Tensor:
    """The equivalent theta with weights of least norm: centred over columns whose common shift changes nothing."""
    table = theta.clone()
    weight = problem.split(table)[0]
    for _, columns in problem.head.shifts:
        weight[columns] -= weight[columns].mean(0)
    return table


def _identified(problem: Problem, theta: Tensor) -> Tensor:
    """The equivalent theta in the layout of the problem: columns of a common shift less their reference column."""
    table = theta.clone()
    weight, bias, _ = problem.split(table)
    for reference, columns in problem.head.shifts:
        bias[columns] -= bias[reference].clone()
        if problem.prior.flat:
            weight[columns] -= weight[reference].clone()
    return table


def _separated(problem: Problem, theta: Tensor, descent: Descent) -> Solution:
    """The solution that states that the classes are separated: there is no maximum, and the infimum is zero."""
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
