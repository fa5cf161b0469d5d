"""Minimisation over a scale, where the minimum over all other parameters is known for each scale (profile)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

_APART = 0.5
"""Distance of grid points in the log scale."""
_MOST_POINTS = 40
"""Most grid points, and most points that extend the grid."""
_MOST_STEPS = 60
"""Most secant steps."""
_ENOUGH = 1e-14
"""Predicted gain of a step, relative to an objective above 1, below which the search ends."""


class ProfilePoint(NamedTuple):
    """The profile at one log scale: the minimiser theta, value, derivative in the log scale, and excess bound `gap`."""

    log_scale: float
    theta: Tensor
    value: float
    slope: float
    gap: float


Profile = Callable[[float, ProfilePoint | None], ProfilePoint]
"""Maps a log scale, and a nearby point of the profile if there is one, to the point at that log scale."""


def lowest(profile: Profile, low: float, high: float) -> ProfilePoint:
    """The minimum of a profile: the lowest point of a grid of log scales, refined.

    The grid is extended beyond an end that is lowest. The gap adds the predicted gain of a further step to that of the
    point, so it bounds the excess over this local minimum only.
    """
    size = min(max(math.ceil((high - low) / _APART) + 1, 3), _MOST_POINTS)
    points: list[ProfilePoint] = []
    for at in np.linspace(high, low, size):
        points.insert(0, profile(float(at), points[0] if points else None))
    for _ in range(_MOST_POINTS):
        best = min(range(len(points)), key=lambda k: points[k].value)
        if best == 0:
            points.insert(0, profile(points[0].log_scale - _APART, points[0]))
        elif best == len(points) - 1:
            points.append(profile(points[-1].log_scale + _APART, points[-1]))
        else:
            break
    best = min(max(best, 1), len(points) - 2)
    return _refined(profile, *points[best - 1 : best + 2])


def _refined(profile: Profile, left: ProfilePoint, middle: ProfilePoint, right: ProfilePoint) -> ProfilePoint:
    """The point between `left` and `right`, both above `middle`, where the slope is zero, by safeguarded secants."""
    before = left if middle.slope > 0 else right
    promised = math.inf
    for _ in range(_MOST_STEPS):
        end = left if middle.slope > 0 else right
        rise = (middle.slope - before.slope) * (middle.log_scale - before.log_scale)
        aim = 0.5 * (middle.log_scale + end.log_scale)
        if rise > 0:
            secant = middle.log_scale - middle.slope * (middle.log_scale - before.log_scale) ** 2 / rise
            inside = min(middle.log_scale, end.log_scale) < secant < max(middle.log_scale, end.log_scale)
            aim = secant if inside else aim
        promised = abs(middle.slope * (aim - middle.log_scale))
        if promised <= _ENOUGH * max(1.0, abs(middle.value)):
            break
        there = profile(aim, middle)
        # Near the minimum, rounding hides changes of the value, but the slope still shows progress.
        is_better = there.value < middle.value - 1e-12 * abs(middle.value) or abs(there.slope) < abs(middle.slope)
        if is_better and there.value <= middle.value + 1e-12 * abs(middle.value):
            left, right = (left, middle) if middle.slope > 0 else (middle, right)
            before, middle = middle, there
        else:
            left, right = (there, right) if middle.slope > 0 else (left, there)
            before = there
    return middle._replace(gap=middle.gap + promised)
