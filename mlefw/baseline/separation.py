"""Separation: a direction along which no row's NLL ever rises, or a proof that there is none."""

import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline import nonexistence, ordinal_existence
from mlefw.baseline.base import Solution
from mlefw.baseline.convexity import prior_bounds_weights
from mlefw.baseline.interior_point import Array
from mlefw.baseline.problem import Problem
from mlefw.baseline.recession import Search, search

_STILL = 1e-6
"""Share of the largest change of an eta below which an eta counts as unchanged along a direction."""
_CERTAIN = 1e-9
"""NLL in nats below which a row counts as predicted without error."""
_LENGTHS = (1.0, 30.0, 300.0)
"""Changes of an eta, in raw units, at which it is tested whether a row's NLL rises."""


class Far(NamedTuple):
    """The far end of a direction of recession: the NLL of each row (n,), and whether the direction moves it (n,)."""

    nll: Tensor
    moved: Tensor


class Recession(NamedTuple):
    """The far end of a direction of recession, if one was found; else whether it was shown that there is none."""

    far: Far | None
    excluded: bool


def recession(solution: Solution, deadline: float) -> Recession:
    """A direction of recession of a problem, or the statement that there is none.

    The last Newton step and theta itself are tried first, because without a maximum the descent follows such a
    direction. For labels and ordered classes, the cone of directions in which a row's NLL never rises is known; for
    any other head each eta column is moved separately, in the directions that the head states (`Head.recession`), or
    else in those in which the NLL of each row does not rise far out. That excludes all directions if there is one
    column, if a row's NLL rises along several columns where it does along one, or if the others are dispersions, whose
    limits `collapse` examines.
    """
    problem, theta = solution.problem, solution.theta
    held = prior_bounds_weights(problem)
    # A proper prior keeps the weights finite, so that only biases can go to infinity.
    free = problem.restricted(problem.active[:0]) if held else problem
    if problem.head.target == "ordered":
        return _of_thresholds(solution, free, deadline)
    if not held:
        for direction in (_last_step(solution), theta):
            far = None if direction is None else _far(problem, theta, direction)
            if far is not None:
                return Recession(far, False)
    if problem.head.target == "labels":
        ends = [_of_labels(free, deadline)]
    else:
        ends = [_of_column(solution, free, k, deadline) for k in range(len(problem.head.center))]
    excluded = all(end.decided for end in ends)
    for way in (end.direction for end in ends if end.direction is not None):
        far = _far(problem, theta, _widened(free, problem, way))
        if far is not None:
            return Recession(far, False)
        excluded = False
    return Recession(None, excluded)


def _last_step(solution: Solution) -> Tensor | None:
    """The Newton step from theta, (size,), whose inverse Hessian makes it long in directions without curvature."""
    free, here = solution.problem.free, solution.derivatives
    curvature = here.hessian[free][:, free]
    root = curvature.diagonal().clamp(min=1e-300).rsqrt()
    scaled = root.unsqueeze(1) * curvature * root
    if not bool(torch.isfinite(scaled).all()) or not bool(torch.isfinite(here.gradient).all()):
        return None
    values, vectors = torch.linalg.eigh(scaled)
    step = torch.zeros_like(solution.theta)
    step[free] = -root * (vectors @ ((vectors.T @ (root * here.gradient[free])) / values.clamp(min=1e-15)))
    return step


def _far(problem: Problem, theta: Tensor, direction: Tensor) -> Far | None:
    """The far end of `direction`; None if the NLL of a row, or the penalty, rises along it."""
    now = torch.cat([eta for _, _, eta in problem.etas(theta)])
    change = torch.cat(list(problem.movements(direction)))
    if problem.head.target == "labels":
        # A common shift of all logits changes nothing: take changes relative to the observed class.
        change = change - change.gather(1, problem.rows.y.unsqueeze(1))
    size = (change / problem.head.gain).abs()
    largest = float(size.max())
    if not 0 < largest < float("inf"):
        return None
    change = torch.where(size > _STILL * largest, change / largest, torch.zeros_like(change))
    before = problem.head.nll_complete(now, problem.rows.y)
    for length in _LENGTHS:
        after = problem.head.nll_complete(now + length * change, problem.rows.y)
        if not bool((after <= before + 1e-12 * (1 + before.abs())).all()):
            return None
        before = after
    if not problem.prior.flat:
        penalties = [problem.prior(problem.split(theta + at * direction / largest)[0]) for at in (0.0, *_LENGTHS)]
        if not all(float(right) <= float(left) for left, right in pairwise(penalties)):
            return None
    nll = torch.where(before < _CERTAIN, before.clamp(max=0.0), before)
    if problem.head.target == "binary":
        # Under any link a row that is moved becomes certain, slowly where the link has heavy tails.
        nll = torch.where((change != 0).any(1), torch.zeros_like(nll), nll)
    # A row of labels becomes certain if all other classes fall behind; any other row if one eta moves.
    others = change.shape[1] - 1 if problem.head.target == "labels" else 1
    return Far(nll, (change != 0).sum(1) >= others)


def _of_column(solution: Solution, free: Problem, k: int, deadline: float) -> Search:
    """The program of one eta column: z · d may only rise, only fall, or not change, as the NLL of each row allows."""
    none = np.zeros(0, dtype=bool)
    ways = [_never_rises(solution, k, sign) for sign in (1.0, -1.0)]
    if any(way is None for way in ways):
        return Search(None, none, False)
    up, down = (np.asarray(way) for way in ways)
    if not (up | down).any():
        return Search(None, none, True)
    head, rows = solution.problem.head, solution.problem.rows
    predicted = k < head.eta_dim
    at = free.design_columns(k).numpy()
    z = free.design(rows).numpy()[:, at] if predicted else np.ones((rows.num_rows, 1))
    one_way = up != down
    grows = z[one_way] * np.where(up, 1.0, -1.0)[one_way, None]
    found = search(z[~up & ~down], grows, z[:0], deadline - time.monotonic())
    if found.direction is None:
        return found
    width = free.num_active + 1
    whole = np.zeros(free.size)
    start = k * width if predicted else head.eta_dim * width + k - head.eta_dim
    whole[start + at if predicted else [start]] = found.direction
    return found._replace(direction=whole)


def _never_rises(solution: Solution, k: int, sign: float) -> Tensor | None:
    """Whether a row's NLL never rises, (n,), as its k-th eta moves in the direction `sign`; None if a value is NaN.

    By what the head states, or else by the NLL at the estimate and far out.
    """
    head, found = solution.problem.head, []
    stated = head.recession(solution.problem.rows.y).get((head.eta_names + head.shared_names)[k])
    if stated is not None:
        return ~(stated.up if sign > 0 else stated.down)
    move = torch.zeros_like(head.center)
    move[k] = sign * head.gain[k]
    for rows, _, eta in solution.problem.etas(solution.theta):
        before = head.nll_complete(eta, rows.y)
        never = torch.ones(rows.num_rows, dtype=torch.bool)
        for length in _LENGTHS:
            after = head.nll_complete(eta + length * move, rows.y)
            if bool(after.isnan().any()):
                return None
            never &= after <= before + 1e-12 * (1 + before.abs())
            before = after
        found.append(never)
    return torch.cat(found)


def _of_labels(problem: Problem, deadline: float) -> Search:
    """The program of labels: in no row may another class gain on the observed one (Albert & Anderson, 1984)."""
    z, label, count = problem.design(problem.rows).numpy(), problem.rows.y.numpy(), problem.head.eta_dim
    seconds = deadline - time.monotonic()
    if z.size * count**2 > 2e7:
        return Search(None, np.zeros(0, dtype=bool), False)
    margins = _class_margins(z, label, count)
    found = search(margins[:0], margins, margins[:0], seconds)
    if found.direction is None:
        return found
    return found._replace(direction=np.concatenate([np.zeros(z.shape[1]), found.direction]))


def _class_margins(z: Array, label: Array, num_classes: int) -> Array:
    """Rows x_i'(d_y − d_k) for all k other than y, in the coefficients of all classes but the first."""
    n, width = z.shape
    blocks = []
    for k in range(num_classes):
        block = np.zeros((n, num_classes, width))
        block[np.arange(n), label] += z
        block[:, k] -= z
        blocks.append(block[label != k].reshape(-1, num_classes * width)[:, width:])
    return np.concatenate(blocks)


def _of_thresholds(solution: Solution, free: Problem, deadline: float) -> Recession:
    """Recession of ordered classes, in the thresholds rather than in eta, in which gaps are exponential."""
    problem = solution.problem
    certain = torch.zeros(problem.rows.num_rows, dtype=torch.bool)
    if nonexistence.empty_class(problem) is None:
        # If each class has rows its two thresholds cannot meet: only directions in which they part remain.
        found = ordinal_existence.separation(free, deadline - time.monotonic())
        if found.direction is None:
            return Recession(None, found.decided)
        certain = torch.from_numpy(found.grown)
    now = torch.cat([problem.head.nll_complete(eta, rows.y) for rows, _, eta in problem.etas(solution.theta)])
    return Recession(Far(torch.where(certain, torch.zeros_like(now), now), certain), False)


def _widened(free: Problem, problem: Problem, direction: Array) -> Tensor:
    """A direction in theta of `problem` from one in theta of `free`, which has fewer features."""
    found, narrow = torch.zeros(problem.size, dtype=torch.float64), torch.from_numpy(direction)
    if free.num_active == problem.num_active:
        return narrow
    for whole, part in zip(problem.split(found)[1:], free.split(narrow)[1:], strict=True):
        whole.copy_(part)
    return found
