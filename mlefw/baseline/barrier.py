"""Means with power links, which have to be positive: Newton's method inside that region, and along its boundary."""

from copy import deepcopy
from dataclasses import replace

import torch

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import feasible, origin

_FIRST, _LAST, _SHORTER = 0.1, 1e-11, 0.1
"""First and last weight of the barrier, in nats, and the factor from one to the next."""
_STEPS = 60
"""Most Newton steps for one weight of the barrier."""
_AT = 1e-5
"""Eta, as a share of the null model's, below which a row counts as on the boundary."""


class Barrier(Solver):
    """Newton's method for heads with a positive eta; where its optimum lies on the boundary, by a logarithmic barrier.

    Outside the region the NLL is infinite, so that step halving keeps every step inside. Where no stationary point lies
    inside (a Poisson rate with an identity link is 0 in some row), the minimum on the closed region is approached along
    the path of the minima of NLL − t · log(eta) as t falls (Fiacco & McCormick, 1968). For a convex NLL the excess at
    the end is at most t for each such eta.
    """

    def supports(self, problem: Problem) -> bool:
        """Whether some eta has to be positive, and the prior is smooth."""
        return bool(problem.head.positive_columns) and problem.prior.smooth

    def solve(self, problem: Problem) -> Solution:
        """The estimate inside, or the one on the boundary, with a reason why it has no standard errors."""
        found = Newton().solve(problem)
        found = found if found.converged else self._along_path(problem)
        count = _num_on_boundary(problem, found.theta)
        if not count:
            return found
        return replace(found, boundary=f"the estimate lies on the boundary: the mean of {count} rows is 0 or infinite")

    @staticmethod
    def _along_path(problem: Problem) -> Solution:
        theta, wall, steps = feasible(problem, origin(problem)), _FIRST, 0
        while wall >= _LAST:
            head = deepcopy(problem.head)
            head.wall = wall
            end = Newton(_STEPS).solve_from(replace(problem, head=head), theta)
            theta, steps, wall = end.theta, steps + end.num_steps, wall * _SHORTER
        gap = wall / _SHORTER * len(problem.head.positive_columns)
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=end.residual,
            solver="newton, barrier",
            num_steps=steps,
            converged=end.converged,
            gap=gap if end.converged else None,
        )


def _num_on_boundary(problem: Problem, theta: torch.Tensor) -> int:
    """Number of rows in which an eta that has to be positive is 0, up to the width of the barrier."""
    columns = problem.head.positive_columns
    least = _AT * problem.head.center[columns].abs()
    return sum(int((eta[:, columns] < least).any(1).sum()) for _, _, eta in problem.etas(theta))
