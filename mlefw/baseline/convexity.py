"""Whether head and prior are convex, as they claim, probed at sampled points."""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import is_known
from mlefw.prior.base import Prior

_MOST_ROWS = 256
"""Most rows on which the convexity of a head is probed."""


def is_convex(problem: Problem, theta: Tensor) -> bool:
    """Whether head and prior claim that a stationary point is the global optimum, and a probe does not refute it.

    Convexity is probed on the rows: no midpoint of two points, near the estimate or far from it, may lie above the
    mean of its ends. A claim of convexity in other parameters cannot be probed so, and is believed of built-in heads.
    """
    if not is_known(problem):
        return False
    if problem.head.convex and not _rows_are_convex(problem, theta):
        return False
    return prior_is_convex(problem.prior, problem.split(theta)[0])


def _rows_are_convex(problem: Problem, theta: Tensor) -> bool:
    """Whether the NLL of rows lies below its chords, between eta near those at theta and eta far from them."""
    rows = problem.rows.take(slice(0, None, 1 + problem.rows.num_rows // _MOST_ROWS))
    few = replace(problem, rows=rows)
    eta, head = torch.cat([eta for _, _, eta in few.etas(theta)]), problem.head
    near = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64).repeat_interleave(16)
    far = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64).repeat(12)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 48, *eta.shape, dtype=torch.float64, generator=generator) * head.gain
    left, right = (eta + size.view(-1, 1, 1) * one for size, one in zip((near, far), noise, strict=True))
    y = rows.y.expand(48, *rows.y.shape)
    return _midpoint_is_below(*(head.nll_complete(ends, y) for ends in (left, right, 0.5 * (left + right))))


def prior_is_convex(prior: Prior, weights: Tensor) -> bool:
    """Whether −log p claims to be convex, and is on midpoints of weights of all sizes and of the given ones."""
    if prior.flat or not prior.convex:
        return prior.flat
    sizes = torch.logspace(-4, 4, 17, dtype=torch.float64)
    points = torch.cat([-sizes, sizes.new_zeros(1), sizes, weights.reshape(-1)[:8]])
    at = torch.stack([prior(point.reshape(1, 1)).detach() for point in points])
    left, right = torch.combinations(torch.arange(len(points)), 2).unbind(1)
    middle = torch.stack([prior(point.reshape(1, 1)).detach() for point in 0.5 * (points[left] + points[right])])
    return _midpoint_is_below(at[left], at[right], middle)


def prior_bounds_weights(problem: Problem) -> bool:
    """Whether −log p of a weight goes to infinity on both sides, judged by values up to 1e9."""
    prior, far = problem.prior, (0.0, 1e3, 1e6, 1e9)
    if prior.flat:
        return False
    ways = [[float(prior(torch.full((1, 1), sign * at, dtype=torch.float64))) for at in far] for sign in (1.0, -1.0)]
    return all(right > left + 1.0 for way in ways for left, right in pairwise(way))


def _midpoint_is_below(left: Tensor, right: Tensor, middle: Tensor) -> bool:
    mean = 0.5 * left + 0.5 * right
    slack = 1e-9 * (1 + left.abs() + right.abs())
    return not bool(((middle > mean + slack) & torch.isfinite(mean)).any())
