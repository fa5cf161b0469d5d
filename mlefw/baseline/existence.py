"""Whether a likelihood has a finite maximum: directions along which no row's NLL ever rises."""

import time
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.problem import Problem

_STILL = 1e-6
"""Share of the largest movement below which a row's eta counts as unmoved by a direction."""
_NOTHING = 1e-9
"""NLL in nats below which a row counts as predicted without error."""


def examine(solution: Solution, max_seconds: float = 20.0) -> Solution:
    """The solution, corrected where the maximum does not exist: `exists` false, with its reason and infimum.

    On a likelihood without a finite maximum Newton's method walks on for ever along a direction of recession
    (Albert & Anderson, 1984; Geyer, 2009): the fitted theta and the last steps are tried as such directions, row by
    row, which proves non-existence; what is left undecided goes to a linear program, within `max_seconds`. The
    infimum is the mean NLL at the far end of such a direction from a point where the gradient vanishes.
    """
    problem = solution.problem
    if not problem.prior.flat or not problem.head.convex or not solution.exists:
        return solution
    limit = _recession(solution, time.monotonic() + max_seconds)
    if limit is None:
        return solution
    limit = torch.where(limit < _NOTHING, torch.zeros_like(limit), limit)
    infimum = float(problem.rows.weight @ limit) / problem.population
    return replace(
        solution,
        exists=False,
        reason=_reason(problem, int((limit == 0).sum())),
        infimum=infimum if solution.converged else None,
    )


def _reason(problem: Problem, num_perfect: int) -> str:
    if problem.head.target == "numeric":
        return (
            "some coefficients go to infinity: a combination of the features (or their intercept) "
            "tells rows with a count of zero from the rest"
        )
    if num_perfect == problem.rows.num_rows:
        return "the classes are completely separated by a linear combination of the features"
    return (
        f"{num_perfect} of {problem.rows.num_rows} rows are predicted without error in the limit: a linear combination "
        f"of the features separates some classes (quasi-complete separation)"
    )


def _recession(solution: Solution, deadline: float) -> Tensor | None:
    """NLL of each row (n,) at the far end of a direction of recession; None where there is none, or none was proved."""
    problem, theta = solution.problem, solution.theta
    free = problem.free
    here = problem.derivatives(theta)
    curvature = here.hessian[free][:, free]
    root = curvature.diagonal().clamp(min=1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(root.unsqueeze(1) * curvature * root)
    if solution.converged and float(values.min()) > 1e-9 and float(here.hessian.diagonal()[free].min()) > 1e-9:
        # A stationary point of a strictly convex function is its minimum: the maximum exists.
        return None
    step = torch.zeros_like(theta)
    step[free] = -root * (vectors @ ((vectors.T @ (root * here.gradient[free])) / values.clamp(min=1e-15)))
    for direction in (step, theta):
        limit = _limit(problem, theta, direction)
        if limit is not None:
            return limit
    found = _by_linear_program(problem, deadline)
    return _limit(problem, theta, found) if found is not None else None


def _limit(problem: Problem, theta: Tensor, direction: Tensor) -> Tensor | None:
    """NLL of each row (n,) far along `direction` if no row's NLL rises on the way, else None."""
    now = torch.cat([eta for _, _, eta in problem.etas(theta)])
    then = torch.cat([eta for _, _, eta in problem.etas(theta + direction)])
    change = then - now
    if problem.head.reference is not None:
        change = change - change[:, problem.head.reference].unsqueeze(1)
    size = change.abs().max(1).values
    largest = float(size.max())
    if not largest > 0:
        return None
    change = torch.where((size > _STILL * largest).unsqueeze(1), change / largest, torch.zeros_like(change))
    change = torch.where(change.abs() > _STILL, change, torch.zeros_like(change))
    y = problem.rows.y
    before = problem.head.nll_complete(now, y)
    for length in (1.0, 30.0, 1000.0):
        after = problem.head.nll_complete(now + length * change, y)
        if not bool((after <= before + 1e-12 * (1 + before.abs())).all()):
            return None
        before = after
    return before


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
