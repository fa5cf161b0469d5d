"""Expectations under the density of a head, by quadrature or summation, using nothing but its log-density."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.head.base import Head
from mlefw.system.random_state import isolated
from mlefw.testing.conformance import ConformanceError
from mlefw.testing.coordinate import Coordinate, bounds, coordinate

_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))
_ROUNDS = 40
"""Most times that a panel is halved."""
_MOST_PANELS = 4096
"""Number of panels above which they are not halved any more."""
_FINEST = 1e-14
"""Relative tolerance of the integral over one panel, so small that a panel with a kink has a negligible mass."""
_SLOW = 0.02
"""Decay of the log-density per unit of t below which the tail counts as too heavy."""
_MOST_COUNTS = 2**20
"""Most values over which a probability mass is summed."""
_NEGLIGIBLE = 1e-16
"""Relative size of a mass that does not change a sum."""

LogDensity = Callable[[Tensor], Tensor]
"""Maps y (m,) to log-densities (m,)."""


@dataclass(frozen=True)
class Nodes:
    """Values y (m,) and masses (m,) with E f(Y) = Σ mass · f(y) at a complete eta (columns,).

    `left_out` estimates the error of the total mass, which is large if tails are too heavy, or the density too rough,
    to be integrated.
    """

    eta: Tensor
    y: Tensor
    mass: Tensor
    left_out: float

    @property
    def total(self) -> float:
        """The integral or sum of the density."""
        return float(self.mass.sum())

    def at(self, level: float) -> Tensor:
        """The quantile of the nodes at a level, a scalar.

        Raises:
            ConformanceError: the density is zero at all nodes.
        """
        if not len(self.mass):
            raise ConformanceError(f"at eta={self.eta.tolist()} the density is zero wherever it was looked at")
        share = self.mass.cumsum(0) / self.mass.sum()
        return self.y[min(int((share < level).sum()), len(share) - 1)]


@torch.no_grad()
def nodes_at(
    head: Head, eta: Tensor, near: Tensor | None = None, knots: Tensor | None = None, tolerance: float = 0.0
) -> Nodes:
    """Nodes of the density of a univariate head.

    Args:
        head: the head.
        eta: a complete eta, (columns,).
        near: plausible values of y, (k,), for a distribution without draws and moments.
        knots: values of y at which second derivatives of the density jump, (k,), where panels have to end.
        tolerance: absolute error of the integral over one panel, of some hundred; by default that of rounding.
    """

    def log_density(y: Tensor) -> Tensor:
        inside = head.support.check(y)
        log = torch.full(y.shape, -math.inf, dtype=torch.float64)
        log[inside] = -head.nll_complete(eta.expand(int(inside.sum()), -1), y[inside]).double()
        return log

    if head.support.is_discrete:
        most = _MOST_COUNTS // 4 if tolerance else _MOST_COUNTS
        y, mass, left_out = _counted(head, log_density, most)
    else:
        typical = _typical(head, eta, near)
        at = coordinate(head.support, typical)
        edges = at.edges(typical)
        if knots is not None:
            edges = torch.cat([edges, at.of_y(knots)]).unique()
        y, mass, left_out = _integrated(log_density, at, edges, tolerance)
    # Drop values without mass, where derivatives may not be finite.
    return Nodes(eta, y[mass != 0], mass[mass != 0], left_out)


def _counted(head: Head, log_density: LogDensity, most: int) -> tuple[Tensor, Tensor, float]:
    """Values, masses and error for whole numbers from the least on, in doubling blocks, until a block adds nothing."""
    dtype = torch.int64 if head.target in ("labels", "ordered") else torch.float64
    lower, last = bounds(head.support)
    if head.target == "binary":
        lower, last = 0.0, 1.0
    start, size = 0 if lower is None else int(lower), 1024
    ys, masses, total = list[Tensor](), list[Tensor](), 0.0
    while True:
        end = start + size if last is None else min(start + size, int(last) + 1)
        y = torch.arange(start, end, dtype=dtype)
        ys.append(torch.cat([-1 - y.flip(0), y]) if lower is None else y)
        masses.append(log_density(ys[-1]).exp())
        block = float(masses[-1].sum())
        total += block
        is_whole = last is not None and end > last
        is_still = total > 1e-3 and block <= _NEGLIGIBLE * total
        if is_whole or is_still or end >= most:
            # The mass of doubling blocks falls at least by half each time, so the rest is at most twice the last one.
            left_out = 0.0 if is_whole or is_still else 2 * block if total > 1e-3 else math.inf
            order = torch.cat(ys).argsort()
            return torch.cat(ys)[order], torch.cat(masses)[order], left_out
        start, size = end, 2 * size


def _integrated(
    log_density: LogDensity, at: Coordinate, edges: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """Values, masses and error by the Gauss–Legendre rule with 20 nodes in panels that are halved adaptively."""

    def values(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t, y and mass at the nodes of panels, each (panels, 20)."""
        half = (right - left).unsqueeze(1) / 2
        t = left.unsqueeze(1) + half * (1 + _NODES)
        y = at.to_y(t.reshape(-1))
        density = (log_density(y) + at.log_slope(t.reshape(-1))).exp()
        return t, y.reshape(t.shape), half * _WEIGHTS * density.reshape(t.shape)

    left, right = edges[:-1], edges[1:]
    coarse = values(left, right)[2].sum(1)
    done, error = list[tuple[Tensor, Tensor, Tensor]](), 0.0
    for number in range(_ROUNDS):
        middle = (left + right) / 2
        halves = torch.stack([left, middle], 1).reshape(-1), torch.stack([middle, right], 1).reshape(-1)
        t, y, mass = values(*halves)
        fine = mass.sum(1)
        gap = (coarse - fine.reshape(-1, 2).sum(1)).abs()
        agrees = gap <= _FINEST * (coarse + 1e-6) + tolerance
        if number == _ROUNDS - 1 or 2 * int((~agrees).sum()) > _MOST_PANELS:
            agrees, error = torch.ones_like(agrees), float(gap.nan_to_num(math.inf).sum())
        keep = agrees.repeat_interleave(2)
        done.append((t[keep], y[keep], mass[keep]))
        left, right, coarse = halves[0][~keep], halves[1][~keep], fine[~keep]
        if not len(left):
            break
    t, y, mass = (torch.cat([part[k].reshape(-1) for part in done]) for k in range(3))
    order = t.argsort()
    return y[order], mass[order], error + _beyond(log_density, at)


def _beyond(log_density: LogDensity, at: Coordinate) -> float:
    """Estimate of the mass beyond both ends, if the integrand goes on to decay as over the last unit of t."""
    beyond = 0.0
    for end, inner in ((at.low, at.low + 1), (at.high, at.high - 1)):
        t = torch.tensor([end, inner], dtype=torch.float64)
        last, before = (log_density(at.to_y(t)) + at.log_slope(t)).tolist()
        if last > math.log(_NEGLIGIBLE):
            # A slower decay may be a power of t, which an exponential would underestimate.
            beyond += math.exp(min(last, 50.0)) / (before - last) if before - last > _SLOW else math.inf
    return beyond


@isolated("conformance")
def _typical(head: Head, eta: Tensor, near: Tensor | None) -> Tensor:
    """Typical values (k,): draws, values about the mean, the given ones, or all orders of magnitude.

    Raises:
        ValueError: none of these lies in the support of the head.
    """
    size = torch.logspace(-12, 12, 97, dtype=torch.float64)
    guesses = (near, torch.cat([-size, size]), torch.tensor([0.25, 0.75], dtype=torch.float64))
    for y in (*_stated(head.distribution(eta)), *guesses):
        if y is not None:
            inside = y.double().reshape(-1)
            inside = inside[inside.isfinite()]
            inside = inside[head.support.check(inside)]
            if len(inside) > 1:
                return inside
    raise ValueError(f"{type(head).__name__}: no number was found in its support, {head.support}")


def _stated(distribution: Distribution) -> list[Tensor]:
    """Draws, or values about the mean, if a distribution implements either; else an empty list."""
    try:
        return [distribution.sample(torch.Size([128]))]
    except NotImplementedError:
        pass
    try:
        return [distribution.mean + distribution.stddev * torch.linspace(-4, 4, 17, dtype=torch.float64)]
    except NotImplementedError:
        return []
