"""A bound on the excess of a solution's objective over its minimum."""

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.newton import positive_solve
from mlefw.baseline.proximal_newton import under_prior
from mlefw.prior.base import soft_threshold


def excess_bound(solution: Solution) -> float | None:
    """A bound on the excess of the objective over its minimum, in nats per observation; None where there is none.

    It is the duality gap where the solver has one, else v' H⁻¹ v for the least subgradient v and the Hessian H at
    theta: twice the gain of a Newton step, which is a bound unless the curvature halves within two such steps (Boyd &
    Vandenberghe, 2004, 9.1.2). Where `is_global` is not True, the minimum is that of the basin of theta.
    """
    if not solution.may_exist or not solution.converged:
        return None
    # No bound is smaller than the rounding error of the objective.
    least = 2.0**-52 * max(1.0, abs(solution.objective))
    if solution.gap is not None:
        return max(least, solution.gap)
    if solution.matrix_free or (solution.smoothing is not None and not solution.smoothing.is_penalised):
        # With estimated scales other parameters are not at the minimum of the penalised NLL.
        return None
    free = solution.problem.free
    slope = subgradient(solution)[free]
    step = positive_solve(solution.derivatives.hessian[free][:, free], slope)
    return None if step is None else max(least, float(slope @ step))


def subgradient(solution: Solution) -> Tensor:
    """The subgradient of least norm of the objective at theta, (size,): the gradient if the prior has no kink."""
    problem, slope = solution.problem, solution.derivatives.gradient.clone()
    mask = torch.from_numpy(under_prior(problem))
    weights, rate = solution.theta[mask], problem.prior.rate / problem.population
    kinked = slope[mask]
    slope[mask] = torch.where(weights == 0, soft_threshold(kinked, rate), kinked + rate * weights.sign())
    return slope
