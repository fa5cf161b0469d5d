"""Coordinates for the integration of a density, in which a power-law tail decays exponentially."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

Map = Callable[[Tensor], Tensor]

_MOST_EDGES = 2048
"""Number of panel edges above which no more are added."""
_LARGEST = 690.0
"""Largest exponent: exp(690) is 1e299."""


@dataclass(frozen=True)
class Coordinate:
    """A map from t in [low, high] to y, elementwise.

    Attributes:
        to_y: y at t.
        log_slope: log dy/dt at t.
        of_y: t at y.
        low: least t; beyond it y rounds to its bound, or overflows.
        high: largest t.
    """

    to_y: Map
    log_slope: Map
    of_y: Map
    low: float
    high: float

    def edges(self, typical: Tensor) -> Tensor:
        """Initial edges of panels: a grid, and typical values (k,), so that a narrow peak does not lie in one panel."""
        low, high = self.low, self.high
        grid = torch.cat([torch.arange(-800, -40, 4), torch.arange(-40, 40, 2), torch.arange(40, 800, 4)]).double()
        some = self.of_y(typical).sort().values
        some = torch.cat([some[:: max(1, len(some) // 32)], some[-1:]])
        edges = torch.cat([grid, some, torch.tensor([low, high], dtype=torch.float64)])
        return _graded(edges[(edges >= low) & (edges <= high)].unique())


def _graded(edges: Tensor) -> Tensor:
    """The edges with additional ones, so that no panel is more than four times as wide as its neighbour."""
    while True:
        width = edges.diff()
        beside = torch.minimum(torch.cat([width[1:], width[-1:]]), torch.cat([width[:1], width[:-1]]))
        wide = width > 4 * beside
        if not bool(wide.any()) or len(edges) > _MOST_EDGES:
            return edges
        edges = torch.cat([edges, (edges[:-1] + width / 2)[wide]]).sort().values


def coordinate(support: Constraint, typical: Tensor) -> Coordinate:
    """The coordinate for a support, scaled to typical values (k,)."""
    lower, upper = bounds(support)
    if lower is not None and upper is not None:
        return _between(lower, upper)
    if lower is not None:
        return _beyond(lower, 1.0, typical)
    if upper is not None:
        return _beyond(upper, -1.0, typical)
    return _line(typical)


def bounds(support: Constraint) -> tuple[float | None, float | None]:
    """The finite lower and upper end of a support, None where there is none."""
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    lower, upper = (None if end is None or not math.isfinite(float(end)) else float(end) for end in ends)
    return lower, upper


def _line(typical: Tensor) -> Coordinate:
    """The map y = m + s sinh t."""
    middle, spread = float(typical.median()), _spread(typical)
    reach = _LARGEST - max(math.log(spread), 0.0)
    return Coordinate(
        lambda t: middle + spread * t.sinh(),
        lambda t: math.log(spread / 2) + torch.logaddexp(t, -t),
        lambda y: ((y - middle) / spread).asinh(),
        -reach,
        reach,
    )


def _beyond(origin: float, sign: float, typical: Tensor) -> Coordinate:
    """The map y = origin ± s exp t."""
    unit = float((sign * (typical - origin)).clamp(min=1e-290).median())
    # Near a nonzero bound the distance to it is limited by rounding.
    least = 1e-299 if origin == 0 else 1e-16 * max(abs(origin), unit)
    return Coordinate(
        lambda t: origin + sign * unit * t.exp(),
        lambda t: t + math.log(unit),
        lambda y: (sign * (y - origin) / unit).log(),
        math.log(least) - math.log(unit),
        _LARGEST - math.log(unit),
    )


def _between(lower: float, upper: float) -> Coordinate:
    """The map y = lower + (upper − lower) / (1 + exp(−t))."""
    width = upper - lower
    return Coordinate(
        lambda t: lower + width * t.sigmoid(),
        lambda t: logsigmoid(t) + logsigmoid(-t) + math.log(width),
        lambda y: torch.logit((y - lower) / width, eps=1e-15),
        -_LARGEST if lower == 0 else -36.0,
        36.0,
    )


def _spread(typical: Tensor) -> float:
    lower, upper = typical.quantile(torch.tensor([0.25, 0.75], dtype=typical.dtype)).tolist()
    return float(upper - lower) or float(typical.std(correction=0)) or abs(float(typical.median())) or 1.0
