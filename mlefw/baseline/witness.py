"""Numerical evidence about an estimate: curvature that holds, a level set that closes, convexity that was tried."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.certificate import subgradient
from mlefw.baseline.derivatives import row_derivatives
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton, under_prior
from mlefw.baseline.quasi_newton import sample
from mlefw.baseline.starts import intercepts, is_known, with_intercepts
from mlefw.inverse_link import identity
from mlefw.prior.base import Prior

_NEAR = 0.05
"""Movement of an eta, in units in which its curvature changes by a factor e, over which it is taken as constant."""
_FURTHER = 4.0
"""Newton's steps after which the curvature is looked at again."""
_CHANGED = 0.3
"""By what share it may have changed."""
_LARGE = 2500
"""Parameters beyond which the inverse of a Hessian is not computed."""
_FEW_ROWS = 5000
_FEW_PROBED = 256
_LENGTHS = (1e-2, 0.1, 1.0, 10.0, 100.0)
"""How far rays go: the movement of an eta, in raw units, that moves most."""
_SAME = 1e-8
"""Nats per observation within which two optima are one."""


def is_settled(solution: Solution) -> bool:
    """Whether the curvature at theta proves a minimum right there, by Newton's and Kantorovich's theorem.

    The Newton decrement times the largest √(zᵀ H⁻¹ z) of a row bounds how far any eta moves on the set in which the
    minimum of the quadratic model lies. Where that is small against the unit in which curvature changes (1 on a log or
    logit scale, a scale for a location), the objective is convex there and rises towards the boundary: a minimum lies
    inside. On the way to infinity the curvature falls as fast as the gradient, and that movement stays near one. Where
    it falls faster still (a double exponential) it is seen to change within a few of Newton's steps.
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
    return decrement * furthest < _NEAR and _holds(problem, theta, step)


def _holds(problem: Problem, theta: Tensor, step: Tensor) -> bool:
    """Whether the curvature of the rows along a Newton step is the same a few steps further on."""
    here = there = 0.0
    for (rows, _, eta), move in zip(problem.etas(theta), problem.movements(step), strict=True):
        ends = [row_derivatives(problem.head, at, rows.y)[2] for at in (eta, eta + _FURTHER * move)]
        forms = [float(rows.weight @ (move.unsqueeze(1) @ end @ move.unsqueeze(2)).flatten()) for end in ends]
        here, there = here + forms[0], there + forms[1]
    return here == 0.0 or abs(there / here - 1) < _CHANGED


def solve_from(problem: Problem, theta: Tensor, max_steps: int = 200) -> Solution:
    """A descent from theta, by the solver that the prior asks for."""
    solver = Newton(max_steps) if problem.prior.smooth else ProximalNewton(max_steps)
    return solver.solve_from(problem, theta)


def positive_inverse(hessian: Tensor) -> Tensor | None:
    """The inverse of a Hessian that is safely positive definite on a unit-diagonal scale; else None."""
    diagonal = hessian.diagonal()
    if not bool(torch.isfinite(hessian).all()) or not bool((diagonal > 0).all()):
        return None
    root = diagonal.rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * hessian * root)
    if bool(failed) or float(factor.diagonal().min()) < 1e-7:
        return None
    return root.unsqueeze(1) * torch.cholesky_inverse(factor) * root


def prior_holds(problem: Problem) -> bool:
    """Whether −log p of a weight rises for ever on both sides, as that of any proper density we know does."""
    prior, far = problem.prior, (0.0, 1e3, 1e6, 1e9)
    if prior.flat:
        return False
    ways = [[float(prior(torch.full((1, 1), sign * at, dtype=torch.float64))) for at in far] for sign in (1.0, -1.0)]
    return all(right > left + 1.0 for way in ways for left, right in pairwise(way))


def lower_point(solution: Solution) -> tuple[bool, Tensor | None]:
    """Whether the objective rises along rays from theta, and a point on one of them where it is lower, if any is.

    Rays go both ways along every direction in which the information at theta has an axis, along theta, and along each
    intercept, from a hundredth of a raw unit of eta to a hundred of them: a level set that closes on all of them.
    """
    problem, theta = _fewer(solution.problem), solution.theta
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
                # A value that overflows has risen; one that is no number says nothing.
                rises &= value > here
                if value < lowest:
                    best, lowest = point, value
    return rises, best


def _axes(solution: Solution, problem: Problem) -> Iterator[Tensor]:
    """Directions of theta, each moving some eta by one raw unit at most; none where the information is no ellipsoid."""
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
    """The observed information over the free entries of theta, or the expected one where that is not positive."""
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
    """How many descents from other starts ended at this very optimum; 0 where one of them ended elsewhere.

    A descent that found no stationary point, and stopped above, says nothing.
    """
    problem = _fewer(solution.problem)
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
    """The null model at several dispersions, and theta itself shaken by as much as it explains."""
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


def is_convex(problem: Problem, theta: Tensor) -> bool:
    """Whether head and prior claim what makes a stationary point the global optimum, and nothing speaks against it.

    A claim of convexity is tried on the rows at hand: between points about the estimate and far from it no midpoint
    may lie above the mean of its ends. A claim to be convex in other parameters cannot be tried like that, and is
    believed of the heads that come with a proof.
    """
    if not is_known(problem):
        return False
    if problem.head.convex and not _rows_are_convex(problem, theta):
        return False
    return prior_is_convex(problem.prior, problem.split(theta)[0])


def _rows_are_convex(problem: Problem, theta: Tensor) -> bool:
    rows = problem.rows.take(slice(0, None, 1 + problem.rows.num_rows // _FEW_PROBED))
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
    """Whether −log p claims to be convex, and was found to be between weights of all sizes and those at hand."""
    if prior.flat or not prior.convex:
        return prior.flat
    sizes = torch.logspace(-4, 4, 17, dtype=torch.float64)
    points = torch.cat([-sizes, sizes.new_zeros(1), sizes, weights.reshape(-1)[:8]])
    at = torch.stack([prior(point.reshape(1, 1)).detach() for point in points])
    left, right = torch.combinations(torch.arange(len(points)), 2).unbind(1)
    middle = torch.stack([prior(point.reshape(1, 1)).detach() for point in 0.5 * (points[left] + points[right])])
    return _midpoint_is_below(at[left], at[right], middle)


def _midpoint_is_below(left: Tensor, right: Tensor, middle: Tensor) -> bool:
    mean = 0.5 * left + 0.5 * right
    slack = 1e-9 * (1 + left.abs() + right.abs())
    return not bool(((middle > mean + slack) & torch.isfinite(mean)).any())


def _fewer(problem: Problem) -> Problem:
    step = problem.rows.num_rows // _FEW_ROWS
    return sample(problem, step) if step > 1 else problem
