"""The exact linear estimate beside a run: null model, maximum likelihood, MAP."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.collinear import independent_columns
from mlefw.baseline.existence import examine
from mlefw.baseline.kinked import Kinked
from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton
from mlefw.baseline.separate import parts, together
from mlefw.baseline.starts import origin
from mlefw.baseline.varying_laplace import VaryingLaplace
from mlefw.errors import UsageError
from mlefw.head.multitask import MultitaskHead

StandardErrors = Literal["default", "observed", "expected", "sandwich", "hc0", "hc1"]

_SOLVERS: tuple[Solver, ...] = (LeastSquares(), LeastAbsolute(), VaryingLaplace(), Kinked(), ProximalNewton(), Newton())


class LinearBaseline:
    """The linear model with the run's own head, features and training rows, solved exactly.

    Args:
        standard_errors: `observed` or `expected` information, `sandwich` (also `hc0`) or `hc1` against a wrong noise
            model, or what is usual for the head.
        max_seconds: bound on the linear program that decides whether a maximum exists.
        features: names of the columns that take part, a categorical one with all its levels; all by default. They are
            known to the composition root, which restricts the problem.
    """

    def __init__(
        self,
        standard_errors: StandardErrors = "default",
        max_seconds: float = 20.0,
        features: list[str] | None = None,
    ) -> None:
        known = get_args(StandardErrors)
        if standard_errors not in known:
            raise UsageError(f"baseline.standard_errors={standard_errors!r}: expected {', '.join(known)}")
        self.features, self.standard_errors, self.max_seconds = features, standard_errors, max_seconds

    def solve(self, problem: Problem) -> Solution:
        """The estimate of a problem; without a prior, collinear features are left out."""
        if problem.prior.flat and problem.num_active:
            problem = problem.restricted(independent_columns(problem)[0])
        if isinstance(problem.head, MultitaskHead):
            return together(problem, [self.solve(part) for part in parts(problem)])
        return examine(_solution(problem), self.max_seconds)


def solve_null(problem: Problem) -> Solution:
    """The intercept-only estimate."""
    problem = problem.restricted(torch.zeros(0, dtype=torch.long))
    if isinstance(problem.head, MultitaskHead):
        return together(problem, [solve_null(part) for part in parts(problem)])
    return examine(_solution(problem))


def _solution(problem: Problem) -> Solution:
    """What the first solver that supports the problem finds; where its arithmetic breaks down the start, and why."""
    solver = solver_for(problem)
    try:
        return solver.solve(problem)
    except (ArithmeticError, np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        theta = origin(problem)
        name, why = type(solver).__name__, f"the solver broke down ({error})"
        return Solution(problem, theta, problem.value(theta), math.inf, name, 0, converged=False, reason=why)


def solver_for(problem: Problem) -> Solver:
    """The first solver that is exact for the problem.

    Raises:
        UsageError: there is none yet.
    """
    for solver in _SOLVERS:
        if solver.supports(problem):
            return solver
    raise UsageError(f"no exact solver for {type(problem.head).__name__} with {type(problem.prior).__name__}")


def full_weight(solution: Solution) -> tuple[Tensor, Tensor, Tensor]:
    """Weights over all features (zero where dropped), biases, shared raw values, as the network would hold them."""
    problem = solution.problem
    weight, bias, shared = problem.split(solution.theta)
    whole = torch.zeros(problem.head.eta_dim, problem.rows.x.shape[1], dtype=torch.float64)
    whole[:, problem.active] = weight
    return whole, bias, shared
