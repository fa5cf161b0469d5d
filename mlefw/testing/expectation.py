"""Expectations under the density that a head states, by quadrature or summation: nothing else of it is believed."""

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
_MOST_PANELS = 4096
_FINEST = 1e-14
"""Relative tolerance of the integral over one panel: so tight that a kink lies in a panel that has next to no mass."""
_SLOW = 0.02
_MOST_COUNTS = 2**20
_NEGLIGIBLE = 1e-16

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Nodes:
    """Values y (m,) and masses (m,) by which E f(Y) at one complete eta (columns,) is Σ mass · f(y).

    `left_out` is about what the total may lack: more than rounding where the tails are too heavy, or the density is too
    rough, for it to be known.
    """

    eta: Tensor
    y: Tensor
    mass: Tensor
    left_out: float

    @property
    def total(self) -> float:
        """What the density integrates or sums to."""
        return float(self.mass.sum())

    def at(self, level: float) -> Tensor:
        """The y up to which about this share of the mass lies, a scalar.

        Raises:
            ConformanceError: there is no mass anywhere.
        """
        if not len(self.mass):
            raise ConformanceError(f"at eta={self.eta.tolist()} the density is zero wherever it was looked at")
        share = self.mass.cumsum(0) / self.mass.sum()
        return self.y[min(int((share < level).sum()), len(share) - 1)]


@torch.no_grad()
def nodes_at(
    head: Head, eta: Tensor, near: Tensor | None = None, knots: Tensor | None = None, tolerance: float = 0.0
) -> Nodes:
    """Nodes of a univariate head.

    Args:
        head: whose density it is.
        eta: complete, (columns,).
        near: some plausible y, (k,), for a distribution that can neither be sampled nor has moments.
        knots: where second derivatives of the density jump, (k,), if anywhere: panels end there.
        tolerance: of the integral over one panel, of some hundred; by default it is rounding.
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
        edges = at.edges(typical if knots is None else torch.cat([typical, knots]))
        y, mass, left_out = _integrated(log_density, at, edges, tolerance)
    # Without mass a value adds nothing, and what a derivative makes of it may not be finite.
    return Nodes(eta, y[mass != 0], mass[mass != 0], left_out)


def _counted(head: Head, log_density: LogDensity, most: int) -> tuple[Tensor, Tensor, float]:
    """Whole numbers from the least on, in blocks that double, until a block adds nothing."""
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
            # What blocks that double add falls no slower than by half, unless there is no total at all.
            left_out = 0.0 if is_whole or is_still else 2 * block if total > 1e-3 else math.inf
            order = torch.cat(ys).argsort()
            return torch.cat(ys)[order], torch.cat(masses)[order], left_out
        start, size = end, 2 * size


def _integrated(
    log_density: LogDensity, at: Coordinate, edges: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """Gauss and Legendre's rule of 20 nodes in panels that are halved until it agrees with itself."""

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
    """About what lies beyond both ends, if the integrand falls on as it does over the last unit."""
    beyond = 0.0
    for end, inner in ((at.low, at.low + 1), (at.high, at.high - 1)):
        t = torch.tensor([end, inner], dtype=torch.float64)
        last, before = (log_density(at.to_y(t)) + at.log_slope(t)).tolist()
        if last > math.log(_NEGLIGIBLE):
            # What falls more slowly may fall like a power of t, of which an exponential says too little.
            beyond += math.exp(min(last, 50.0)) / (before - last) if before - last > _SLOW else math.inf
    return beyond


@isolated("conformance")
def _typical(head: Head, eta: Tensor, near: Tensor | None) -> Tensor:
    """Where the mass lies: draws, or moments, or the y that were given, or every order of magnitude; (k,)."""
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
    """Draws, or values about the mean, as far as a distribution has them."""
    try:
        return [distribution.sample(torch.Size([128]))]
    except NotImplementedError:
        pass
    try:
        return [distribution.mean + distribution.stddev * torch.linspace(-4, 4, 17, dtype=torch.float64)]
    except NotImplementedError:
        return []
