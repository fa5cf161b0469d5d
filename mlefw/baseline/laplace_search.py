"""The least criterion of Laplace's approximation over several starts, and its curvature there."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from mlefw.baseline.eta_rows import Array
from mlefw.baseline.laplace_integral import LaplaceIntegral
from mlefw.baseline.quadratic import at_precision
from mlefw.baseline.work import LeftOutError

STARTS = (-2.0, 2.0, 8.0)
"""Logarithms of the precision of every term from which the search starts, in natural units (see `NaturalUnits`)."""
BOUND = 20.0
"""Bound of these logarithms: beyond it rounding errors of the precision would exceed what the rows tell."""
FAR = 15.0
"""Such a logarithm beyond which an effect has reached its limit: a straight line, or no effect of its own."""
SAME = 1e-5
"""Difference of the criterion within which two optima count as one."""
_TRIED = 5.0
"""Such a logarithm beyond which the limit itself is tried, towards which the criterion is ever flatter."""
_NEAR = 1e-5
"""Gradient at which the search ends and Newton's method, with the curvature by differences, goes on."""
_LOW = 0.05
"""Height above an optimum, in nats, below which a descent towards it has come to it."""
_STEP = 1e-3
"""Step of differences of the gradient, in natural units and standard errors."""
_FLAT = 1e-7
"""Share of the largest curvature, in these units, below which a direction changes nothing."""


@dataclass(frozen=True)
class Optimum:
    """The end of the search.

    Attributes:
        x: the point, (num_scales + num_outer,).
        value: the criterion there, in nats.
        gradient: its gradient, zero in scales at their limit.
        curvature: its Hessian, zero in scales at their limit.
        at_limit: whether each scale is at its limit, (num_scales,).
        num_optima: number of different optima that the searches found.
    """

    x: Array
    value: float
    gradient: Array
    curvature: Array
    at_limit: NDArray[np.bool_]
    num_optima: int = 1

    @property
    def is_minimum(self) -> bool:
        """Whether no direction curves downwards."""
        values = np.linalg.eigvalsh(self.curvature)
        return bool(values[0] > -_FLAT * max(1.0, values[-1]))

    def has_near(self, x: Array, value: float) -> bool:
        """Whether a point lies where the criterion is nearly the parabola of this optimum."""
        away = x - self.x
        if bool((away[: len(self.at_limit)][self.at_limit] != 0).any()):
            return False
        height = 0.5 * float(away @ self.curvature @ away)
        return height < _LOW and abs(value - self.value - height) < 0.2 * height + SAME

    @property
    def inverse(self) -> Array:
        """The inverse of the curvature, zero along directions that change nothing."""
        values, vectors = np.linalg.eigh(self.curvature)
        kept = values > _FLAT * max(1.0, float(values[-1]))
        found: Array = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        return found


def search(integral: LaplaceIntegral) -> Optimum:
    """The point with the least criterion over several starts.

    Raises:
        LeftOutError: no point has a positive definite Hessian.
    """
    blocks = integral.problem.blocks_of_terms
    is_log = np.concatenate([np.arange(block.num_scales) < block.num_effects for block in blocks])
    best: Optimum | None = None
    values: list[float] = []
    # From the middle first, where an optimum is found soonest.
    for start in sorted(STARTS, key=abs):
        first = np.concatenate([at_precision(blocks, start).numpy(), np.zeros(len(integral.center))])
        end = _descent(integral, first, is_log, best)
        if end is None:
            continue
        value, x = _at_limits(integral, *end, is_log)
        values.append(value)
        if best is None or value < best.value - SAME:
            best = _polished(integral, x, is_log)
    if best is None:
        raise LeftOutError("no scale of the smooth terms gave an estimate")
    least = min(values)
    return replace(best, num_optima=len({round((value - least) / SAME) for value in values}))


def _descent(
    integral: LaplaceIntegral, first: Array, is_log: NDArray[np.bool_], known: Optimum | None
) -> tuple[float, Array] | None:
    """The value and point where a descent ends; None where it has no end, or comes to a known optimum."""
    highest = math.inf

    def value(x: Array) -> tuple[float, Array]:
        """The criterion; where it is infinite a number above all before it, so that a search can interpolate."""
        nonlocal highest
        found, slope = integral.value(x)
        if not math.isfinite(found):
            return highest + abs(highest) + 1, slope
        highest = found if math.isinf(highest) else max(highest, found)
        return found, slope

    is_known = False

    def stop(intermediate_result: OptimizeResult) -> None:
        nonlocal is_known
        if known is not None and known.has_near(intermediate_result.x, float(intermediate_result.fun)):
            is_known = True
            raise StopIteration

    bounds = [(-BOUND, BOUND) if one else (None, None) for one in is_log] + [(None, None)] * len(integral.center)
    options = {"ftol": 1e-15, "gtol": _NEAR, "maxcor": 20}
    found = minimize(value, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=stop)
    return None if is_known or not math.isfinite(float(found.fun)) else (float(found.fun), found.x)


def _at_limits(integral: LaplaceIntegral, value: float, x: Array, is_log: NDArray[np.bool_]) -> tuple[float, Array]:
    """The end of a search, with scales that went far at the limit where that is no worse."""
    for k in np.flatnonzero(is_log):
        if _TRIED < abs(x[k]) < BOUND:
            there = x.copy()
            there[k] = math.copysign(BOUND, x[k])
            found, _ = integral.value(there)
            if found <= value + 1e-9 * max(1.0, abs(value)):
                value, x = found, there
    return value, x


def _polished(integral: LaplaceIntegral, x: Array, is_log: NDArray[np.bool_]) -> Optimum:
    """The optimum by Newton's method, whose curvature is found once or twice."""
    at_limit = is_log & (np.abs(x[: len(is_log)]) > FAR)
    free = np.ones(len(x), dtype=bool)
    free[: len(is_log)] = ~at_limit
    value, gradient = integral.value(x)
    here = Optimum(x, value, np.where(free, gradient, 0.0), _curvature(integral, x, free), at_limit)
    for _ in range(3):
        moved = here.x - here.inverse @ here.gradient
        if not here.is_minimum or np.abs(moved - here.x).max() > 1.0:
            break
        value, gradient = integral.value(moved)
        gradient = np.where(free, gradient, 0.0)
        if not np.abs(gradient).max() < 0.5 * np.abs(here.gradient).max():
            break
        far = np.abs(moved - here.x).max() > _STEP
        curvature = _curvature(integral, moved, free) if far else here.curvature
        here = Optimum(moved, value, gradient, curvature, at_limit)
    return here


def _curvature(integral: LaplaceIntegral, x: Array, free: NDArray[np.bool_]) -> Array:
    """The Hessian of the criterion by central differences of its gradient, zero in what is not free."""
    found = np.zeros((len(x), len(x)))
    for k in np.flatnonzero(free):
        sides = []
        for sign in (1, -1):
            there = x.copy()
            there[k] += sign * _STEP
            sides.append(integral.value(there)[1])
        found[k] = (sides[0] - sides[1]) / (2 * _STEP)
    found[:, ~free] = 0.0
    return (found + found.T) / 2
