"""Linear models with a kinked density: Huber's, and a Laplace density with censored rows."""

import math
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.collapse import on_a_plane
from mlefw.baseline.globbing import spread
from mlefw.baseline.kinked_objective import KinkedObjective, is_exact, kinked_component
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton
from mlefw.baseline.scale_profile import ProfilePoint, lowest
from mlefw.head.censored import CensoredHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior

_WIDEST = 20.0
"""Widest range of log scales that is searched."""
_FEW = 60
"""Steps that Newton's method gets, which may succeed if no row is near a kink."""


class Kinked(Solver):
    """A proximal Newton method whose model keeps the kinks: each step is a fit of absolute deviations with a ridge.

    Exact rows contribute absolute deviations (Laplace) or Huber deviations; censored rows and a learnt scale contribute
    a smooth part. The parameters are the coefficients beta for a fixed scale, or gamma = beta / scale and the precision
    1 / scale for a learnt one, in which the NLL is convex (Olsen, 1978; Burridge, 1981). So every step descends, and
    the predicted gain of the last one bounds the excess, as for Newton's method. Huber's density tries Newton's method
    first.

    Under a prior with a learnt scale the objective is not convex, but it is for each fixed scale: a search over the
    scale finds the minimum.
    """

    takes_terms: ClassVar = True

    def supports(self, problem: Problem) -> bool:
        """Whether the head is Huber's with a fixed delta, or a censored Laplace head, and some rows are exact."""
        head = problem.head
        kinked = type(kinked_component(problem)) is (LaplaceHead if isinstance(head, CensoredHead) else HuberHead)
        given = not (isinstance(head, HuberHead) and "delta" not in head.fixed)
        known = is_exact(problem.rows.y) & (problem.rows.weight > 0)
        ours = type(problem.prior) in (NoPrior, L2Prior, L1Prior, ElasticNetPrior)
        return kinked and given and head.eta_names == ("loc",) and ours and bool(known.any())

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with a bound `gap` on its excess."""
        exists = None
        if problem.head.shared_names and not problem.prior.flat:
            theta, gap, steps = _over_scales(problem)
            # The prior bounds the weights and the rows the bias; a scale of zero needs a plane through all exact rows.
            exists = None if on_a_plane(problem) else True
        else:
            first = Newton(_FEW) if problem.prior.smooth else ProximalNewton(_FEW)
            if isinstance(problem.head, HuberHead) and (found := first.solve(problem)).converged:
                return found
            objective = KinkedObjective(problem)
            point, gap, steps = objective.minimum()
            theta = objective.theta(point)
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=gap,
            solver="interior point",
            num_steps=steps,
            converged=gap < 1e-9,
            exists=exists,
            gap=gap,
        )


def _over_scales(problem: Problem) -> tuple[Tensor, float, int]:
    """Theta under a prior with a learnt scale, a bound on its excess over the local minimum, and the number of steps.

    The scale is searched between that of the fit without a prior and that of the null model.
    """
    counts: list[int] = []

    def profile(log_scale: float, near: ProfilePoint | None) -> ProfilePoint:
        objective = KinkedObjective(problem, math.exp(log_scale))
        beta, gap, steps = objective.minimum(None if near is None else near.theta[: objective.size].numpy())
        theta = problem.with_scale(spread(problem, objective.with_zeros(beta)), objective.scale)
        value, gradient = problem.slope(theta)
        counts.append(steps)
        return ProfilePoint(log_scale, theta, value, float(gradient[-1] / problem.head.gain[1]), gap)

    flat = replace(problem, prior=NoPrior())
    null = flat.restricted(problem.active[:0])
    low, high = (-math.log(float(KinkedObjective(of).minimum()[0][-1])) for of in (flat, null))
    best = lowest(profile, min(max(low, high - _WIDEST), high), high)
    return best.theta, best.gap, sum(counts)
