"""Whether a Gaussian between bounds has a finite estimate, or the exponential distribution fits no worse."""

import torch
from torch import Tensor

from mlefw.baseline.newton import positive_solve
from mlefw.baseline.problem import Problem
from mlefw.head.gaussian import GaussianHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.truncated import TruncatedHead

REASON = (
    "beyond the bound the values fall off no faster than exponentially: the location goes away from them and the scale "
    "to infinity, towards an exponential distribution of the distance to the bound"
)


def exponential_limit(problem: Problem) -> float | None:
    """The infimum of the mean NLL at the exponential limit if that is where it is; None if a finite estimate exists.

    In (loc / scale², −1 / (2 scale²)) a Gaussian with a shared scale and one bound is an exponential family, whose NLL
    is convex; where the second parameter is 0 it is the exponential distribution of the distance t from the bound, with
    a rate that is linear in the features. The minimum lies there if and only if the NLL does not fall from there
    inwards: where the mean of t² is at least its expectation, the mean of 2 / rate², at the best rates. For an
    intercept alone: mean t² >= 2 (mean t)² (del Castillo, 1994). None, too, for any other head or with a prior.
    """
    head = problem.head
    if not isinstance(head, TruncatedHead) or not problem.prior.flat or head.shared_names != ("scale",):
        return None
    part, bounds = head.component, (head.lower, head.upper)
    is_log = isinstance(part, LognormalHead)
    if not isinstance(part, GaussianHead | LognormalHead) or (None in bounds) == (bounds == (None, None)):
        return None
    rows = problem.rows
    bound = torch.tensor(next(end for end in bounds if end is not None), dtype=torch.float64)
    t = ((rows.y.log() - bound.log()) if is_log else (rows.y - bound)).abs()
    share = rows.weight / problem.population
    rate = _rates(problem.design(rows), t, share)
    if rate is None or not float(share @ t.square()) >= float(share @ (2 / rate.square())):
        return None
    unit = float(share @ rows.y.log()) if is_log else 0.0
    return float(share @ (rate * t - rate.log())) + unit


def _rates(z: Tensor, t: Tensor, share: Tensor) -> Tensor | None:
    """The rates z · gamma > 0, (n,), of the likeliest exponential distributions of t, by Newton's method; or None."""
    mean = float(share @ t)
    if not mean > 0:
        return None
    gamma = torch.zeros(z.shape[1], dtype=torch.float64)
    gamma[-1] = 1 / mean
    for _ in range(100):
        rate = z @ gamma
        slope = z.T @ (share * (t - 1 / rate))
        step = positive_solve(z.T @ ((share / rate.square()).unsqueeze(1) * z), slope)
        if step is None:
            return None
        decrement = float(slope @ step)
        if decrement < 1e-20:
            return rate
        # The damped step keeps a self-concordant function within its domain (Nesterov & Nemirovskii, 1994).
        least = float(share[share > 0].min())
        gamma = gamma - step / (1.0 if decrement < 0.01 * least else 1 + (decrement / least) ** 0.5)
    return None
