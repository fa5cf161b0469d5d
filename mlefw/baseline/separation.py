"""Separated rows: the cones of directions in which each row's NLL never rises, and a direction that lies in all."""

import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline import nonexistence, ordinal_existence
from mlefw.baseline.base import Solution
from mlefw.baseline.interior_point import Array
from mlefw.baseline.problem import Problem
from mlefw.baseline.recession import Search, search
from mlefw.baseline.witness import prior_holds

_STILL = 1e-6
"""Share of the largest movement below which a row's eta counts as unmoved by a direction."""
_NOTHING = 1e-9
"""NLL in nats below which a row counts as predicted without error."""
_LENGTHS = (1.0, 30.0, 300.0)
"""How far an eta is moved, in raw units, to see whether a row's NLL ever rises."""


class Far(NamedTuple):
    """The far end of a direction of recession: the NLL of each row (n,), and which rows (n,) it moves to certainty."""

    nll: Tensor
    moved: Tensor


class Recession(NamedTuple):
    """The far end of a direction of recession, where one was found, and whether a program showed that there is none."""

    far: Far | None
    excluded: bool


def recession(solution: Solution, deadline: float) -> Recession:
    """A direction of recession, or that there is none.

    The last step of Newton's method and theta itself are tried first: without a maximum it walks along one. Of labels
    and ordered classes the cones of the rows are known; of any other head each eta column is moved alone, and it is
    tried how far out a row's NLL ever rises. That excludes all directions where there is one column, or where the
    others are those of a dispersion, whose own ends are looked at elsewhere (`collapse`).
    """
    problem, theta = solution.problem, solution.theta
    held = prior_holds(problem)
    # What a prior holds cannot go anywhere: the biases remain.
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
    """Newton's step from theta, by an inverse that lets directions without curvature be long."""
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
    """The far end of `direction` if no row's NLL rises on the way, nor the prior, else None."""
    now = torch.cat([eta for _, _, eta in problem.etas(theta)])
    change = torch.cat(list(problem.movements(direction)))
    if problem.head.target == "labels":
        # Adding one number to all logits changes nothing: count from the class that was observed.
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
    nll = torch.where(before < _NOTHING, before.clamp(max=0.0), before)
    # Of classes every other one has to fall behind; of counts and pairs there is one eta to move.
    others = change.shape[1] - 1 if problem.head.target == "labels" else 1
    return Far(nll, (change != 0).sum(1) >= others)


def _of_column(solution: Solution, free: Problem, k: int, deadline: float) -> Search:
    """The program of one eta column: z · d may only rise, only fall, or not move, whichever a row's NLL allows."""
    none = np.zeros(0, dtype=bool)
    ways = [_never_rises(solution, k, sign) for sign in (1.0, -1.0)]
    if any(way is None for way in ways):
        return Search(None, none, False)
    up, down = (np.asarray(way) for way in ways)
    if not (up | down).any():
        return Search(None, none, True)
    head, rows = solution.problem.head, solution.problem.rows
    predicted = k < head.eta_dim
    z = free.design(rows).numpy() if predicted else np.ones((rows.num_rows, 1))
    one_way = up != down
    grows = z[one_way] * np.where(up, 1.0, -1.0)[one_way, None]
    found = search(z[~up & ~down], grows, z[:0], deadline - time.monotonic())
    if found.direction is None:
        return found
    width = free.num_active + 1
    whole = np.zeros(free.size)
    start = k * width if predicted else head.eta_dim * width + k - head.eta_dim
    whole[start : start + z.shape[1]] = found.direction
    return found._replace(direction=whole)


def _never_rises(solution: Solution, k: int, sign: float) -> Tensor | None:
    """Whether a row's NLL never rises, (n,), as its k-th eta goes one way; None where a value is no number."""
    head, found = solution.problem.head, []
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
    """The program of classes: in no row may another class gain on the observed one (Albert & Anderson, 1984)."""
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
    """Thresholds part exponentially fast in eta, so their directions are those of a program of their own."""
    problem = solution.problem
    certain = torch.zeros(problem.rows.num_rows, dtype=torch.bool)
    if nonexistence.empty_class(problem) is None:
        # Each class keeps its thresholds apart: what remains are directions in which they part.
        found = ordinal_existence.separation(free, deadline - time.monotonic())
        if found.direction is None:
            return Recession(None, found.decided)
        certain = torch.from_numpy(found.grown)
    now = torch.cat([problem.head.nll_complete(eta, rows.y) for rows, _, eta in problem.etas(solution.theta)])
    return Recession(Far(torch.where(certain, torch.zeros_like(now), now), certain), False)


def _widened(free: Problem, problem: Problem, direction: Array) -> Tensor:
    """A direction of the free parameters as one of all."""
    found, narrow = torch.zeros(problem.size, dtype=torch.float64), torch.from_numpy(direction)
    if free.num_active == problem.num_active:
        return narrow
    for whole, part in zip(problem.split(found)[1:], free.split(narrow)[1:], strict=True):
        whole.copy_(part)
    return found
