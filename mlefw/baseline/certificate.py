"""What a solution proves about itself: how far above its optimum it can be."""

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.newton import positive_solve
from mlefw.baseline.proximal_newton import under_prior
from mlefw.prior.base import soft_threshold


def excess_bound(solution: Solution) -> float | None:
    """By how many nats per observation the objective can exceed its minimum; None where nothing is proved.

    A duality gap where the solver has one. Else v' H⁻¹ v, for the least subgradient v and the Hessian H at theta:
    twice what a Newton step would gain, so a bound as long as the curvature does not halve within two such steps
    (Boyd & Vandenberghe, 2004, 9.1.2). It speaks of the optimum of the basin where `is_global` is false.
    """
    if solution.exists is False or not solution.converged:
        return None
    # What rounding of the objective itself leaves open.
    least = 2.0**-52 * max(1.0, abs(solution.objective))
    if solution.gap is not None:
        return max(least, solution.gap)
    if solution.matrix_free:
        return None
    free = solution.problem.free
    slope = subgradient(solution)[free]
    step = positive_solve(solution.derivatives.hessian[free][:, free], slope)
    return None if step is None else max(least, float(slope @ step))


def subgradient(solution: Solution) -> Tensor:
    """The least subgradient of the objective at theta, (size,): its gradient where the prior has no kink."""
    problem, slope = solution.problem, solution.derivatives.gradient.clone()
    mask = torch.from_numpy(under_prior(problem))
    weights, rate = solution.theta[mask], problem.prior.rate / problem.population
    kinked = slope[mask]
    slope[mask] = torch.where(weights == 0, soft_threshold(kinked, rate), kinked + rate * weights.sign())
    return slope
