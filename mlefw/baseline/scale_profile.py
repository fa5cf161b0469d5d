"""The scale at which an objective is least, where its minimum over all other parameters is known for each scale."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

_APART = 0.5
"""Distance of the points of the grid, in the log scale."""
_MOST_POINTS = 40
_MOST_STEPS = 60
_ENOUGH = 1e-14
"""Nats per observation that a step has to promise."""


class Point(NamedTuple):
    """The minimum at one log scale: theta, its value and slope in the log scale, and by how much it may be missed."""

    log_scale: float
    theta: Tensor
    value: float
    slope: float
    gap: float


Profile = Callable[[float, Point | None], Point]
"""The minimum at a log scale, from one that is near, where there is any."""


def lowest(profile: Profile, low: float, high: float) -> Point:
    """The lowest point of a profile: the valley that a grid of log scales finds, which is followed to its bottom.

    The grid goes on beyond an end that is the lowest. The gap adds to that of the point what a step along its slope
    would gain, so it speaks of that valley.
    """
    size = min(max(math.ceil((high - low) / _APART) + 1, 3), _MOST_POINTS)
    points: list[Point] = []
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
    return _bottom(profile, *points[best - 1 : best + 2])


def _bottom(profile: Profile, left: Point, middle: Point, right: Point) -> Point:
    """Where the slope vanishes between two points that lie above a third, by secants that are kept between them."""
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
        # Near the bottom the value is all rounding; the slope still tells.
        is_better = there.value < middle.value - 1e-12 * abs(middle.value) or abs(there.slope) < abs(middle.slope)
        if is_better and there.value <= middle.value + 1e-12 * abs(middle.value):
            left, right = (left, middle) if middle.slope > 0 else (middle, right)
            before, middle = middle, there
        else:
            left, right = (there, right) if middle.slope > 0 else (left, there)
            before = there
    return middle._replace(gap=middle.gap + promised)
