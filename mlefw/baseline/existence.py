"""Whether a likelihood has a finite maximum: directions along which no row's NLL ever rises."""

import math
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline import absence
from mlefw.baseline.base import Solution
from mlefw.baseline.moments import moments
from mlefw.baseline.newton import Newton
from mlefw.baseline.ordered import certain_rows
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import intercepts, with_intercepts
from mlefw.head.base import FactorizedHead
from mlefw.prior.none import NoPrior

_STILL = 1e-6
"""Share of the largest movement below which a row's eta counts as unmoved by a direction."""
_COLLAPSED = 1e-6
"""Scale, in units of the target, below which a row counts as fitted exactly."""
_FAR = 60.0
"""Eta of a parameter at which its head is the simpler one to all digits."""
_BEYOND = 2.0
"""How many times further out than the end of its range a parameter is that will not come back."""
_EQUAL = 1e-12
"""Share of an objective below which a difference is rounding."""
_NOTHING = 1e-9
"""NLL in nats below which a row counts as predicted without error."""


def examine(solution: Solution, max_seconds: float = 20.0) -> Solution:
    """The solution, corrected where the maximum does not exist: `exists` false, with its reason and infimum.

    On a likelihood without a finite maximum Newton's method walks on for ever along a direction of recession
    (Albert & Anderson, 1984; Geyer, 2009): the fitted theta and the last steps are tried as such directions, row by
    row, which proves non-existence; what is left undecided goes to a linear program, within `max_seconds`. The
    infimum is the mean NLL at the far end of such a direction from a point where the gradient vanishes.
    """
    whole = solution.problem
    used = whole.rows.weight > 0
    if not bool(used.all()):
        # A row of weight zero is no row: it would hide a separation of the others.
        solution = replace(solution, problem=replace(whole, rows=whole.rows.take(used)))
    return replace(_examine(solution, max_seconds), problem=whole)


def _examine(solution: Solution, max_seconds: float) -> Solution:
    if not solution.exists:
        return solution
    if not solution.problem.head.convex:
        solution = _examine_limits(solution) or _examine_scales(solution)
        if not solution.exists or not solution.problem.head.support.is_discrete:
            return solution
    if not solution.problem.prior.flat:
        return _examine_biases(solution, max_seconds)
    far = _recession(solution, time.monotonic() + max_seconds)
    if far is None:
        return solution
    problem = solution.problem
    infimum = float(problem.rows.weight @ far.nll) / problem.population
    return replace(
        solution,
        exists=False,
        reason=absence.separation(problem, int((far.moved & (far.nll == 0)).sum())),
        infimum=infimum if solution.converged else None,
    )


def _examine_biases(solution: Solution, max_seconds: float) -> Solution:
    """Under a prior on the weights only the flat biases can diverge: exactly where the null model has no maximum."""
    problem = replace(solution.problem.restricted(torch.zeros(0, dtype=torch.long)), prior=NoPrior())
    null = Newton().solve(problem)
    far = _recession(null, time.monotonic() + max_seconds)
    if far is None:
        return solution
    reason = absence.one_value(problem) or absence.empty_class(problem)
    return replace(solution, exists=False, reason=reason)


def _examine_limits(solution: Solution) -> Solution | None:
    """The solution without a maximum, where a parameter is on its way to the end at which the head is a simpler one.

    The rest is fitted again with the parameter that far out, which gives the infimum; None where it is no better.
    """
    problem, theta, reasons = solution.problem, solution.theta.clone(), []
    head = problem.head
    names = head.eta_names + head.shared_names
    raw = intercepts(problem, theta)
    for limit in (limit for limit in head.limits if limit.name in names):
        k, far = names.index(limit.name), math.copysign(_FAR, limit.end)
        move = far - float(head.center[k] + head.gain[k] * raw[k])
        if abs(far - move) > _BEYOND * abs(limit.end) and (far - move) * far > 0:
            for column in {k, names.index(limit.beside) if limit.beside in names else k}:
                raw[column] += move / head.gain[column]
            reasons.append(limit.reason)
    if not reasons:
        return None
    there = Newton(max_steps=20).solve_from(problem, with_intercepts(problem, theta, raw))
    if not there.objective <= solution.objective + _EQUAL * max(1.0, abs(solution.objective)):
        return None
    infimum = there.objective if there.converged else None
    return replace(solution, exists=False, is_global=False, reason="; ".join(reasons), infimum=infimum)


def _examine_scales(solution: Solution) -> Solution:
    """Without a stationary point, a scale on its way to zero is the unbounded likelihood of rows fitted exactly."""
    problem, head = solution.problem, solution.problem.head
    if solution.converged:
        return solution
    smallest, count = float("inf"), 0
    for _, _, eta in problem.etas(solution.theta):
        scale = head.least_scale(eta)
        if scale is None:
            return solution
        smallest = min(smallest, float(scale.min()))
        count += int((scale < _COLLAPSED).sum())
    located = isinstance(head, FactorizedHead) and inverse_link.identity is head.link(head.eta_names[0])
    if located and moments(problem).is_perfect:
        return _perfect_fit(solution)
    if smallest >= _COLLAPSED:
        return replace(solution, reason="no stationary point was found")
    which = f"{count} of {problem.rows.num_rows} rows are fitted exactly"
    return replace(solution, exists=False, reason=f"{which}: the likelihood is unbounded as their scale goes to 0")


def _perfect_fit(solution: Solution) -> Solution:
    """Of a scale that is predicted: the location is that of least squares, whatever its scale does."""
    problem, fit, theta = solution.problem, moments(solution.problem), solution.theta.clone()
    weight, bias, _ = problem.split(theta)
    weight[0], bias[0] = fit.weight, fit.mean_y - float(fit.weight @ fit.mean_z)
    reason = absence.perfect_fit(fit.total_square == 0)
    return replace(solution, theta=theta, known=None, exists=False, determined=problem.prior.flat, reason=reason)


class _Far(NamedTuple):
    """The far end of a direction of recession: the NLL of each row (n,), and which rows (n,) it moves to certainty."""

    nll: Tensor
    moved: Tensor


def _recession(solution: Solution, deadline: float) -> _Far | None:
    """The far end of a direction of recession; None where there is none, or none was proved."""
    problem, theta = solution.problem, solution.theta
    free = problem.free
    here = solution.derivatives
    curvature = here.hessian[free][:, free]
    root = curvature.diagonal().clamp(min=1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(root.unsqueeze(1) * curvature * root)
    if solution.converged and float(values.min()) > 1e-9 and float(here.hessian.diagonal()[free].min()) > 1e-9:
        # A stationary point of a strictly convex function is its minimum: the maximum exists.
        return None
    if problem.head.target == "ordered":
        return _by_order(solution, deadline)
    step = torch.zeros_like(theta)
    step[free] = -root * (vectors @ ((vectors.T @ (root * here.gradient[free])) / values.clamp(min=1e-15)))
    for direction in (step, theta):
        far = _far(problem, theta, direction)
        if far is not None:
            return far
    # The program knows classes and counts: an eta that falls for ever suits a count of zero and nothing else.
    found = _by_linear_program(problem, deadline) if problem.head.support.is_discrete else None
    return _far(problem, theta, found) if found is not None else None


def _by_order(solution: Solution, deadline: float) -> _Far | None:
    """Thresholds part exponentially fast in eta, so their directions are those of a program of their own."""
    problem = solution.problem
    if absence.empty_class(problem) is not None:
        certain: Tensor | None = torch.zeros(problem.rows.num_rows, dtype=torch.bool)
    else:
        certain = certain_rows(problem, deadline - time.monotonic())
    if certain is None:
        return None
    now = torch.cat([problem.head.nll_complete(eta, rows.y) for rows, _, eta in problem.etas(solution.theta)])
    return _Far(torch.where(certain, torch.zeros_like(now), now), certain)


def _far(problem: Problem, theta: Tensor, direction: Tensor) -> _Far | None:
    """The far end of `direction` if no row's NLL rises on the way, else None."""
    now = torch.cat([eta for _, _, eta in problem.etas(theta)])
    change = torch.cat(list(problem.movements(direction)))
    if problem.head.target == "labels":
        # Adding one number to all logits changes nothing: count from the class that was observed.
        change = change - change.gather(1, problem.rows.y.unsqueeze(1))
    largest = float(change.abs().max())
    if not largest > 0:
        return None
    change = torch.where(change.abs() > _STILL * largest, change / largest, torch.zeros_like(change))
    before = problem.head.nll_complete(now, problem.rows.y)
    for length in (1.0, 30.0, 1000.0):
        after = problem.head.nll_complete(now + length * change, problem.rows.y)
        if not bool((after <= before + 1e-12 * (1 + before.abs())).all()):
            return None
        before = after
    nll = torch.where(before < _NOTHING, torch.zeros_like(before), before)
    # Of classes every other one has to fall behind; of counts and pairs there is one eta to move.
    others = change.shape[1] - 1 if problem.head.target == "labels" else 1
    return _Far(nll, (change != 0).sum(1) == others)


def _by_linear_program(problem: Problem, deadline: float) -> Tensor | None:
    """A direction of recession by linear programming (Konis, 2007; Correia et al., 2019), or None.

    Maximises the total margin over directions in the unit box along which no row loses.
    """
    head, y = problem.head, problem.rows.y
    z = problem.design(problem.rows).numpy()
    width, seconds = z.shape[1], deadline - time.monotonic()
    if seconds <= 0 or z.size * head.eta_dim > 5e6:
        return None
    if head.target == "labels":
        gains, equal = _class_margins(z, y.numpy(), head.eta_dim), None
    elif head.target == "binary":
        gains, equal = z * np.where(y.numpy() == 1, 1.0, -1.0)[:, None], None
    else:
        gains, equal = -z[y.numpy() == 0], z[y.numpy() > 0]
    if not len(gains):
        return None
    result = linprog(
        -gains.sum(0),
        A_ub=-gains,
        b_ub=np.zeros(len(gains)),
        A_eq=equal if equal is not None and len(equal) else None,
        b_eq=np.zeros(len(equal)) if equal is not None and len(equal) else None,
        bounds=[(-1.0, 1.0)] * gains.shape[1],
        options={"time_limit": seconds},
    )
    if result.status != 0 or -result.fun < 1e-7:
        return None
    direction = torch.zeros(problem.size, dtype=torch.float64)
    skipped = width if head.reference is not None else 0
    direction[skipped : head.eta_dim * width] = torch.from_numpy(result.x)
    return direction


def _class_margins(z: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows x_i'(d_y − d_k) for all k other than y, in the coefficients of all classes but the first."""
    n, width = z.shape
    blocks = []
    for k in range(num_classes):
        block = np.zeros((n, num_classes, width))
        block[np.arange(n), label] += z
        block[:, k] -= z
        blocks.append(block[label != k].reshape(-1, num_classes * width)[:, width:])
    return np.concatenate(blocks)
