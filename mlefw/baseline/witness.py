"""Numerical evidence that an estimate is an optimum: curvature around it, its level set on rays, other descents."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.certificate import subgradient
from mlefw.baseline.derivatives import row_derivatives
from mlefw.baseline.newton import Newton, positive_inverse
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton, under_prior
from mlefw.baseline.quasi_newton import sample
from mlefw.baseline.starts import intercepts, with_intercepts
from mlefw.inverse_link import identity

_NEAR = 0.05
"""Change of an eta over which curvature counts as constant, in units in which it changes by a factor e."""
_FURTHER = 4.0
"""Number of Newton steps after which the curvature is compared."""
_CHANGED = 0.3
"""Relative change of the curvature that is allowed."""
_LARGE = 2500
"""Most parameters for which the inverse of a Hessian is computed."""
_FEW_ROWS = 5000
"""Most rows for evaluations along rays and for further descents."""
_LENGTHS = (1e-2, 0.1, 1.0, 10.0, 100.0)
"""Lengths of rays: the largest change of an eta, in raw units."""
_SAME = 1e-8
"""Difference of objectives, in nats per observation, within which two optima count as one."""


def is_settled(solution: Solution) -> bool:
    """Whether the curvature at theta proves a minimum near it, in the way of the Newton–Kantorovich theorem.

    The Newton decrement times the largest √(zᵀ H⁻¹ z) of a row bounds the change of any eta on the ellipsoid that
    contains the minimum of the quadratic model. If this change is small against the unit in which curvature changes (1
    on a log or logit scale, the scale for a location), the objective is convex there and rises towards the boundary,
    so that a minimum lies inside. If a parameter goes to infinity, curvature falls as fast as the gradient, and the
    change stays near one; if it falls faster (a double exponential), it differs after a few Newton steps.
    """
    problem, theta = solution.problem, solution.theta
    face = problem.free & (theta.ne(0) | ~torch.from_numpy(under_prior(problem)) | torch.tensor(problem.prior.smooth))
    if not int(face.sum()) or int(face.sum()) > _LARGE:
        return False
    hessian, slope = solution.derivatives.hessian[face][:, face], subgradient(solution)[face]
    inverse = positive_inverse(hessian)
    if inverse is None or not bool(torch.isfinite(slope).all()):
        return False
    whole = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    whole[face.unsqueeze(1) & face] = inverse.reshape(-1)
    decrement = float(slope @ inverse @ slope) ** 0.5
    furthest, width = 0.0, problem.num_active + 1
    names = problem.head.eta_names + problem.head.shared_names
    located = [problem.head.inverse_link_of(name) is identity for name in names]
    for _, design, eta in problem.designs(theta):
        scale = problem.head.least_scale(eta)
        for k, is_located in enumerate(located):
            shared = k - problem.head.eta_dim
            start = problem.head.eta_dim * width + shared if shared >= 0 else k * width
            z = design[:, -1:] if shared >= 0 else design
            block = whole[start : start + z.shape[1], start : start + z.shape[1]]
            reach = ((z @ block) * z).sum(1).clamp(min=0).sqrt()
            if is_located and scale is not None:
                reach = reach / scale.clamp(max=1.0)
            furthest = max(furthest, float(reach.max()))
    step = torch.zeros_like(theta)
    step[face] = -(inverse @ slope)
    return decrement * furthest < _NEAR and _has_constant_curvature(problem, theta, step)


def _has_constant_curvature(problem: Problem, theta: Tensor, step: Tensor) -> bool:
    """Whether the curvature along a Newton step is nearly the same a few steps further on."""
    here = there = 0.0
    for (rows, _, eta), move in zip(problem.etas(theta), problem.movements(step), strict=True):
        ends = [row_derivatives(problem.head, at, rows.y)[2] for at in (eta, eta + _FURTHER * move)]
        forms = [float(rows.weight @ (move.unsqueeze(1) @ end @ move.unsqueeze(2)).flatten()) for end in ends]
        here, there = here + forms[0], there + forms[1]
    return here == 0.0 or abs(there / here - 1) < _CHANGED


def solve_from(problem: Problem, theta: Tensor, max_steps: int = 200) -> Solution:
    """The solution of a descent from theta, by Newton's or the proximal Newton method as the prior requires."""
    solver = Newton(max_steps) if problem.prior.smooth else ProximalNewton(max_steps)
    return solver.solve_from(problem, theta)


def lower_point(solution: Solution) -> tuple[bool, Tensor | None]:
    """Whether the objective rises along all rays from theta; and a point on a ray where it is lower, if there is one.

    Rays go in both directions along the principal axes of the information at theta, along theta, and along each
    intercept, with changes of eta from a hundredth of a raw unit to a hundred units.
    """
    problem, theta = fewer_rows(solution.problem), solution.theta
    if problem is not solution.problem:
        theta = solve_from(problem, theta).theta
    here = problem.value(theta)
    axes = list(_axes(solution, problem))
    if not axes:
        return False, None
    rises, best, lowest = True, None, here - _SAME
    for axis in axes:
        for sign in (1.0, -1.0):
            for length in _LENGTHS:
                point = theta + sign * length * axis
                value = problem.value(point)
                # Infinity counts as a rise, NaN does not.
                rises &= value > here
                if value < lowest:
                    best, lowest = point, value
    return rises, best


def _axes(solution: Solution, problem: Problem) -> Iterator[Tensor]:
    """Directions of theta, each changing an eta by at most one raw unit; none if the information is not positive."""
    theta, free = solution.theta, problem.free
    matrix = _information(solution)
    if matrix is None:
        return
    root = matrix.diagonal().rsqrt()
    _, vectors = torch.linalg.eigh(root.unsqueeze(1) * matrix * root)
    found = [theta * free]
    for vector in (root.unsqueeze(1) * vectors).T[:40]:
        axis = torch.zeros_like(theta)
        axis[free] = vector
        found.append(axis)
    zero = torch.zeros_like(theta)
    raw = torch.eye(problem.head.eta_dim + problem.head.shared_dim, dtype=torch.float64)
    found += [with_intercepts(problem, zero, one) * free for one in raw]
    for axis in found:
        most = max(float((move.abs() / problem.head.gain).max()) for move in problem.movements(axis))
        if most > 0:
            yield axis / most


def _information(solution: Solution) -> Tensor | None:
    """The observed information in the free entries of theta, or the expected one if it is not positive; or None."""
    problem, free = solution.problem, solution.problem.free
    if int(free.sum()) > _LARGE:
        return None
    observed = solution.derivatives.hessian[free][:, free]
    if positive_inverse(observed) is not None:
        return observed
    try:
        expected = problem.derivatives(solution.theta, expected=True).hessian[free][:, free]
    except NotImplementedError:
        return None
    return expected if positive_inverse(expected) is not None else None


def agrees(solution: Solution) -> int:
    """Number of descents from other starts that end at the optimum of a solution; 0 if one ends at another optimum.

    A descent that stops above the optimum without a stationary point is not counted.
    """
    problem = fewer_rows(solution.problem)
    here = solve_from(problem, solution.theta) if problem is not solution.problem else solution
    generator = torch.Generator().manual_seed(0)
    same = 0
    for point in _scattered(solution, generator):
        end = solve_from(problem, point, 60)
        if end.converged and abs(end.objective - here.objective) <= _SAME:
            same += 1
        elif end.converged or end.objective < here.objective - _SAME:
            return 0
    return same


def _scattered(solution: Solution, generator: torch.Generator) -> Iterator[Tensor]:
    """Other starts: the null model with several dispersions, and theta plus noise of its own size."""
    problem, theta = solution.problem, solution.theta
    raw = intercepts(problem, theta)
    flat = torch.zeros_like(theta)
    for shift in (-3.0, -1.0, 1.0, 3.0):
        moved = raw.clone()
        moved[1:] += shift
        yield with_intercepts(problem, flat, moved)
    size = theta.abs().mean() + 0.5
    for _ in range(4):
        noise = torch.randn(len(theta), dtype=torch.float64, generator=generator)
        yield theta + size * noise * problem.free


def fewer_rows(problem: Problem) -> Problem:
    """The problem on a sample of many rows; equal rows (counts in a null model) are merged if that halves them."""
    step = problem.rows.num_rows // _FEW_ROWS
    few = sample(problem, step) if step > 1 else problem
    rows = few.rows
    columns = (problem.active_features(rows), rows.y.double(), rows.offset)
    whole = torch.cat([column.reshape(rows.num_rows, -1) for column in columns], 1)
    _, first, index = np.unique(whole.numpy(), axis=0, return_index=True, return_inverse=True)
    if 2 * len(first) > rows.num_rows:
        return few
    total = np.bincount(index, rows.weight.numpy())
    merged = rows.take(torch.from_numpy(first))._replace(weight=torch.from_numpy(total))
    return replace(few, rows=merged)
