"""Whether a likelihood has a finite maximum: proved, shown numerically, disproved, or left open."""

import math
import time
from dataclasses import replace

import torch

from mlefw.baseline import nonexistence, truncated_existence
from mlefw.baseline.base import Solution
from mlefw.baseline.collapse import Collapse, collapse, has_exact, on_a_plane
from mlefw.baseline.convexity import is_convex
from mlefw.baseline.newton import on_floor, positive_inverse
from mlefw.baseline.problem import Problem
from mlefw.baseline.separation import recession
from mlefw.baseline.starts import intercepts, origin, sharpened, with_intercepts
from mlefw.baseline.truncated_existence import exponential_limit
from mlefw.baseline.witness import agrees, is_settled, lower_point, solve_from

_FAR = 60.0
"""Eta of a parameter at which its head equals the simpler head of its limit to all digits."""
_BEYOND = 2.0
"""Multiple of `Limit.end` beyond which a parameter is taken to be on its way to the limit."""
_EQUAL = 1e-12
"""Relative difference of objectives below which it is rounding error."""
_LOWER = 1e-9
"""Relative difference of objectives above which the lower one is truly lower."""
_SHARES = (0.0, 0.25, 0.5)
"""Multiples of `Limit.end` from which descents search for an optimum inside the range of a parameter."""
_CHEAP = 500
"""Most features for which a perfect fit is searched before a descent."""
_SHARP = 1e-3
"""Scale that is reported where the scale goes to zero, as a share of the target's spread."""
_ENOUGH = 4
"""Descents from other starts that must end at an optimum to call it the only one."""


def examine(solution: Solution, max_seconds: float = 20.0) -> Solution:
    """The solution with `exists` and `is_global` filled in, and a reason where either could not be shown.

    For a head that is convex, possibly in other parameters, existence follows from positive curvature in a
    neighbourhood of theta, or from a linear program that finds no direction of recession (Albert & Anderson, 1984;
    Geyer, 2009); for other heads, from curvature and a level set that is bounded on rays in many directions. There is
    no maximum if there is a direction along which no row's NLL rises, a perfect fit, or a parameter in whose limit a
    simpler head fits no worse. Otherwise the question stays open (None). The infimum is the mean NLL at the far end of
    such a direction, from a point where the gradient vanishes. Linear programs take at most `max_seconds`.
    """
    whole = solution.problem
    used = whole.rows.weight > 0
    if not bool(used.all()):
        # A row of weight zero does not count, but would hide a separation of the other rows.
        solution = replace(solution, problem=replace(whole, rows=whole.rows.take(used)))
    return replace(_examine(solution, time.monotonic() + max_seconds), problem=whole)


def perfect_fit(problem: Problem, max_seconds: float = 20.0) -> Solution | None:
    """The solution where a perfect fit rules out a maximum, found before a descent; None if there is no perfect fit.

    A descent would follow the scale towards zero for hundreds of steps. A few rows are fitted first, and all rows only
    if these few are fitted exactly.
    """
    if problem.num_active > _CHEAP:
        return None
    rows = problem.rows
    used = rows.weight > 0
    rows = rows if bool(used.all()) else rows.take(used)
    whole = replace(problem, rows=rows)
    few = rows.take(slice(None, None, max(1, rows.num_rows // (2 * problem.num_active + 18))))
    if not on_a_plane(replace(whole, rows=few)) or not on_a_plane(whole):
        return None
    found = collapse(whole, max_seconds)
    if found is None:
        return None
    theta = origin(whole)
    theta = theta if found.line is None else sharpened(whole, theta, _SHARP)
    start = Solution(whole, theta, math.nan, math.inf, "least squares", 1, converged=False)
    solution = _collapsed(start, found)
    return replace(solution, problem=problem, objective=problem.value(solution.theta))


def _examine(solution: Solution, deadline: float) -> Solution:
    if solution.exists is not None:
        return solution
    outside = exponential_limit(solution.problem)
    if outside is not None:
        return replace(solution, exists=False, is_global=None, reason=truncated_existence.REASON, infimum=outside)
    convex = is_convex(solution.problem, solution.theta)
    settled = solution.converged and is_settled(solution)
    if convex and settled:
        return replace(solution, exists=True, is_global=True)
    found = _at_limit(solution, deadline) or _at_collapse(solution, deadline)
    if found is not None:
        return found
    separated = recession(solution, deadline)
    if separated.far is not None:
        problem, far = solution.problem, separated.far
        infimum = float(problem.rows.weight @ far.nll) / problem.population
        # If all rows become certain, the infimum is zero from any starting point; a head that is neither convex nor
        # unimodal may have a lower one along another way to infinity.
        is_only = convex or problem.head.unimodal
        is_known = (solution.converged and is_only) or bool((far.moved & (far.nll == 0)).all())
        return replace(
            solution,
            exists=False,
            is_global=None,
            reason=nonexistence.separation(problem, int((far.moved & (far.nll == 0)).sum())),
            infimum=infimum if is_known and problem.prior.flat else None,
        )
    if convex and separated.excluded and (solution.problem.head.convex or has_exact(solution.problem)):
        # The minimum exists, found or not.
        why = None if solution.converged else solution.reason or "no stationary point was found"
        proved = solution.converged or None
        return replace(solution, exists=True, is_global=proved, reason=why)
    return _by_witness(solution, settled)


def _by_witness(solution: Solution, settled: bool) -> Solution:
    """The solution judged by its level set on rays; a ray that finds a lower point leads to a better optimum."""
    if on_floor(solution):
        return _open(solution, "a component stands on the floor of its scale")
    if not solution.converged:
        return _open(solution, "; ".join(["no stationary point was found", *_far_out(solution)]))
    for _ in range(3):
        rises, lower = lower_point(solution)
        if lower is None:
            break
        better = solve_from(solution.problem, lower)
        if not better.converged or better.objective >= solution.objective:
            return _open(solution, "the NLL is lower elsewhere, where no stationary point was found")
        solution, settled = replace(better, is_global=None), is_settled(better)
    if not rises:
        return _open(solution, "the NLL does not rise in all directions from the estimate")
    free = solution.problem.free
    if not settled and positive_inverse(solution.derivatives.hessian[free][:, free]) is not None:
        # A density with kinks has no curvature: then the rays alone decide.
        return _open(solution, "the curvature at the estimate may be that of a way to infinity")
    solution = replace(solution, exists=True, is_global=None)
    count = agrees(solution) if solution.problem.head.lone and solution.problem.prior.flat else 0
    if count < _ENOUGH:
        return solution
    return replace(solution, is_global=True, shown_by=f"the only optimum of {count + 1} descents")


def _open(solution: Solution, why: str) -> Solution:
    return replace(solution, exists=None, is_global=None, reason=solution.reason or why)


def _far_out(solution: Solution) -> list[str]:
    """What the parameters go to that lie far beyond the end of their range."""
    head, raw = solution.problem.head, intercepts(solution.problem, solution.theta)
    eta = head.center + head.gain * raw
    return [limit.reason for k, limit in head.column_limits() if float(eta[k]) / limit.end > _BEYOND]


def _at_limit(solution: Solution, deadline: float) -> Solution | None:
    """The solution without a maximum, if a parameter goes to a limit in which the head is a simpler one.

    The other parameters are fitted again at the limit, which gives the infimum; None if that fit is worse. If descents
    from the limit inwards find a lower optimum, that one is examined instead.
    """
    problem, theta, reasons = solution.problem, solution.theta.clone(), []
    head = problem.head
    names = head.eta_names + head.shared_names
    raw = intercepts(problem, theta)
    for limit in (limit for limit in head.limits if limit.name in names):
        k, far = names.index(limit.name), math.copysign(_FAR, limit.end)
        move = far - float(head.center[k] + head.gain[k] * raw[k])
        if abs(far - move) > _BEYOND * abs(limit.end) and (far - move) * far > 0:
            raw[k] += move / head.gain[k]
            if limit.beside in names:
                beside = names.index(limit.beside)
                raw[beside] += (-move if limit.opposite else move) / head.gain[beside]
            reasons.append(limit.reason)
    if not reasons or not bool(torch.isfinite(raw).all()):
        return None
    there = solve_from(problem, with_intercepts(problem, theta, raw), 20)
    if not there.objective <= solution.objective + _EQUAL * max(1.0, abs(solution.objective)):
        return None
    inside = _inside(there)
    if inside is not None:
        return _examine(inside, deadline)
    infimum = there.objective if there.converged and problem.prior.flat else None
    return replace(solution, exists=False, is_global=None, reason="; ".join(reasons), infimum=infimum)


def _inside(there: Solution) -> Solution | None:
    """A stationary point below the objective at a limit, by descents from several distances to the limit; or None."""
    problem, far = there.problem, intercepts(there.problem, there.theta)
    for k, limit in problem.head.column_limits():
        for share in _SHARES:
            raw = far.clone()
            raw[k] = (share * limit.end - problem.head.center[k]) / problem.head.gain[k]
            end = solve_from(problem, with_intercepts(problem, there.theta, raw))
            if end.converged and end.objective < there.objective - _LOWER * max(1.0, abs(there.objective)):
                return replace(end, exists=None, is_global=None)
    return None


def _at_collapse(solution: Solution, deadline: float) -> Solution | None:
    """The solution without a maximum, if rows are fitted exactly; with the coefficients if all rows are."""
    found = collapse(solution.problem, deadline - time.monotonic())
    return None if found is None else _collapsed(solution, found)


def _collapsed(solution: Solution, found: Collapse) -> Solution:
    problem, theta = solution.problem, solution.theta.clone()
    if found.line is not None:
        weight, bias, _ = problem.split(theta)
        weight[0], bias[0] = found.line[:-1], found.line[-1]
    return replace(
        solution,
        theta=theta,
        known=None,
        exists=False,
        is_global=None,
        determined=found.line is not None and problem.prior.flat,
        reason=found.reason,
        infimum=found.infimum,
    )
