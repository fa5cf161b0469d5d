"""What a solver is, and what it returns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from mlefw.baseline.derivatives import Derivatives
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import dense_work

_STEPS = 12
"""Of Newton's method, most often."""


@dataclass(frozen=True)
class Solution:
    """An estimate with its certificate.

    Attributes:
        problem: what was solved (with the features that take part).
        theta: the estimate, in the layout of the problem.
        objective: nats per observation, the negative log-prior included.
        residual: largest violation of the optimality conditions, in nats per observation and unit of theta.
        converged: whether the residual is small enough to call theta a stationary point.
        is_global: whether theta is known to be the global optimum; None where neither was shown.
        exists: whether the likelihood (without the floor of scales) has a finite maximum; None where neither was shown.
        determined: whether the location is known although no maximum exists: every row is fitted exactly.
        reason: one sentence, where there is no maximum, none was shown to exist, or the solver gave up.
        shown_by: the numerical witness that theta is the global optimum, in a few words, where it is no proof.
        infimum: what the mean NLL comes arbitrarily close to, where it has no minimum and this is known.
        gap: the duality gap in nats per observation, where the solver has one.
        matrix_free: whether there are too many coefficients for a Hessian to be formed.
        parts: of several targets that are independent given x, the solution of each.
        known: the derivatives at theta, if the solver has them.
    """

    problem: Problem
    theta: Tensor
    objective: float
    residual: float
    solver: str
    num_steps: int
    converged: bool = True
    is_global: bool | None = None
    exists: bool | None = None
    determined: bool = False
    reason: str | None = None
    shown_by: str | None = None
    infimum: float | None = None
    gap: float | None = None
    matrix_free: bool = False
    parts: tuple["Solution", ...] = ()
    known: Derivatives | None = field(default=None, repr=False, compare=False)

    @cached_property
    def derivatives(self) -> Derivatives:
        """Objective, gradient and observed Hessian at theta; one pass over the rows, the first time."""
        return self.known or self.problem.derivatives(self.theta)


class Solver(ABC):
    """Finds the theta that minimises a problem's objective."""

    @abstractmethod
    def supports(self, problem: Problem) -> bool:
        """Whether this solver is exact for the problem."""

    def work(self, problem: Problem) -> float:
        """About how many multiplications it takes at most: by default those of Newton's method with full Hessians."""
        head = problem.head
        return dense_work(problem.rows.num_rows, problem.num_active, head.eta_dim + head.shared_dim, _STEPS)

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The estimate, with its certificate."""
