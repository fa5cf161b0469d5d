"""`Solver`, the interface of an exact solver, and `Solution`, the estimate that it returns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from mlefw.baseline.derivatives import Derivatives
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Smoothing
from mlefw.baseline.work import dense_work

_STEPS = 12
"""Usual number of Newton steps."""


@dataclass(frozen=True)
class Solution:
    """An estimate with its certificate.

    Attributes:
        problem: the problem, restricted to the features that were used.
        theta: the estimate, in the layout of the problem.
        objective: objective at theta in nats per observation, including the negative log-prior.
        residual: largest violation of the optimality conditions, in nats per observation and unit of theta.
        solver: name of the method, for reports.
        num_steps: number of iterations.
        converged: whether the residual is small enough to call theta a stationary point.
        is_global: whether theta is the global optimum; None if neither was shown.
        exists: whether the likelihood (without the floor of scales) has a finite maximum; None if neither was shown.
        determined: whether the location is determined although no maximum exists, because every row is fitted exactly.
        reason: why there is no maximum, none was shown to exist, or the solver stopped: one sentence.
        shown_by: the numerical evidence that theta is the global optimum, where there is no proof: a few words.
        infimum: the infimum of the mean NLL where it has no minimum, if known.
        gap: duality gap in nats per observation, if the solver has one.
        matrix_free: whether there are too many coefficients to form a Hessian.
        boundary: why there are no standard errors although the estimate exists: it lies on the boundary of the region
            of its parameters; one clause.
        parts: for several targets that are independent given x, the solution of each.
        smoothing: scales of smooth terms and effects of groups, with their certificate; None without such terms.
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
    boundary: str | None = None
    parts: tuple["Solution", ...] = ()
    smoothing: Smoothing | None = None
    known: Derivatives | None = field(default=None, repr=False, compare=False)

    @property
    def may_exist(self) -> bool:
        """Whether the estimate was not shown not to exist."""
        return self.exists is not False

    @cached_property
    def derivatives(self) -> Derivatives:
        """Objective, gradient and observed Hessian at theta, from one pass over the rows unless known."""
        return self.known or self.problem.derivatives(self.theta)


class Solver(ABC):
    """Finds the theta that minimises a problem's objective."""

    takes_terms: ClassVar[bool] = False
    """Whether it also solves problems whose eta columns differ in their features, intercepts or offsets."""

    @abstractmethod
    def supports(self, problem: Problem) -> bool:
        """Whether the solver finds the exact estimate of the problem."""

    def work(self, problem: Problem) -> float:
        """Rough upper bound on the number of multiplications, by default that of Newton's method with full Hessians."""
        head = problem.head
        return dense_work(problem.rows.num_rows, problem.num_active, head.eta_dim + head.shared_dim, _STEPS)

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The estimate of the problem, with its certificate."""
