"""Standard errors of quantile regression that do not ask for identically distributed noise (Hendricks & Koenker)."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.baseline.problem import Problem
from mlefw.distribution.reference import normal_quantile
from mlefw.head.quantile import QuantileHead, pinball

_LEAST = math.sqrt(np.finfo(float).eps)
"""Distance of the two quantiles of a row, in the unit of the target, that is taken off before it is inverted."""


def takes(problem: Problem) -> bool:
    """Whether the head is a quantile with a constant scale, without a prior."""
    return type(problem.head) is QuantileHead and problem.head.eta_names == ("loc",) and problem.prior.flat


def hendricks_koenker(solution: Solution) -> Tensor | str:
    """The covariance of theta, (size, size), or a clause that says why there is none.

    The density of each row at its quantile is 2 h over the distance of the fits at level − h and level + h, with the
    bandwidth h of Hall & Sheather (1988) for 95 % intervals; rows whose quantiles cross have none. With D the diagonal
    matrix of densities, V = level (1 − level) (X'DX)⁻¹ X'X (X'DX)⁻¹, as in `summary(rq, se = "nid")` of R. Of a learnt
    scale it is the variance of a mean of pinball losses.

    Source: Hendricks & Koenker (1992).
    """
    problem, head = solution.problem, solution.problem.head
    assert isinstance(head, QuantileHead)
    h = bandwidth(head.level, problem.population)
    ends = [_beta(problem, head.level + side * h) for side in (1.0, -1.0)]
    width = problem.num_active + 1
    bread, meat = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    losses, least = 0.0, _LEAST / float(head.gain[0])
    for rows, design, eta in problem.designs(solution.theta):
        apart = design @ (ends[0] - ends[1])
        density = torch.where(apart > least, 2 * h / (apart - least), 0.0)
        bread += design.T @ ((rows.weight * density).unsqueeze(1) * design)
        meat += design.T @ (rows.weight.unsqueeze(1) * design)
        u = (rows.y - eta[:, 0]) / head.params(eta)["scale"]
        losses += float(rows.weight @ (pinball(u, head.level) - 1).square())
    inverse, failed = torch.linalg.inv_ex(bread)
    if bool(failed) or not bool(inverse.isfinite().all()):
        return "too few rows have quantiles in order at the two neighbouring levels"
    matrix = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    matrix[:width, :width] = head.level * (1 - head.level) * inverse @ meat @ inverse
    if head.shared_dim:
        matrix[-1, -1] = losses / problem.population**2 / head.gain[1] ** 2
    return matrix


def bandwidth(level: float, population: float) -> float:
    """The bandwidth of Hall & Sheather (1988), halved until level − h and level + h are probabilities."""
    score = float(normal_quantile(level))
    density = math.exp(-0.5 * score**2) / math.sqrt(2 * math.pi)
    z = float(normal_quantile(0.975))
    h = population ** (-1 / 3) * z ** (2 / 3) * (1.5 * density**2 / (2 * score**2 + 1)) ** (1 / 3)
    while not h < min(level, 1 - level):
        h /= 2
    return h


def _beta(problem: Problem, level: float) -> Tensor:
    """The coefficients of the fit at another level, (num_active + 1,), in the layout of the design."""
    head = deepcopy(problem.head)
    head.level = level  # type: ignore[assignment]
    found = LeastAbsolute().solve(replace(problem, head=head))
    return found.theta[: problem.num_active + 1]
