"""Pearson's estimate of a dispersion, relative to the one of the model."""

import math

import torch

from mlefw.baseline.base import Solution


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
            distribution = problem.head.distribution(eta)
            total += float(rows.weight @ ((rows.y - distribution.mean).square() / distribution.variance))
    except NotImplementedError:
        return f"{name} states no mean and variance"
    if not math.isfinite(total):
        return f"the variance of {name} is not finite at the estimate, or zero"
    return total / df
