"""Pearson's estimate of a dispersion, relative to the one of the model."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.baseline.base import Solution
from mlefw.distribution.trials import GivenTrials


@torch.no_grad()
def pearson_ratio(solution: Solution, df: float) -> float | str:
    """Σ w (y − mean)² / variance over `df`, or a clause that says why there is none (McCullagh & Nelder, 1989).

    The variance is that of the model with its own dispersion: the result is one where that is right. Times that
    dispersion it is Pearson's X² / (n − p).

    Args:
        solution: the estimate.
        df: degrees of freedom, n − p.
    """
    problem, total = solution.problem, 0.0
    name = type(problem.head).__name__
    try:
        for rows, _, eta in problem.etas(solution.theta):
            total += float(rows.weight @ pearson_squares(problem.head.distribution(eta), rows.y))
    except NotImplementedError:
        return f"{name} states no mean and variance"
    if not math.isfinite(total):
        return f"the variance of {name} is not finite at the estimate, or zero"
    return total / df


def pearson_squares(distribution: Distribution, y: Tensor) -> Tensor:
    """(y − mean)² / variance of each row, (n,); of a count out of trials given the number of trials.

    Raises:
        NotImplementedError: the distribution states no mean or variance.
    """
    if isinstance(distribution, GivenTrials):
        y, trials = y.unbind(-1)
        distribution = distribution.given(trials)
    return (y - distribution.mean).square() / distribution.variance
