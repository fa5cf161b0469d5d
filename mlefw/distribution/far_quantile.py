"""Quantiles from the mass of the tail that they cut off, which may be far smaller than the rounding of 1 − mass."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.cdf import cdf, is_discrete, survival
from mlefw.distribution.quantile import quantile

_NEAR = 1e-6
"""Mass from which on the quantile of the distribution itself is exact enough: to 1e-10 of the mass."""

_DOUBLINGS = 1100
_HALVINGS = 200


def from_below(distribution: Distribution, mass: float) -> Tensor:
    """The smallest y with P(Y <= y) >= mass, (*batch,), for a mass in (0, 1)."""
    if mass >= _NEAR or is_discrete(distribution):
        return quantile(distribution, max(mass, torch.finfo(torch.float64).tiny))
    return _search(distribution, mass, False)


def from_above(distribution: Distribution, mass: float) -> Tensor:
    """The smallest y with P(Y > y) <= mass, (*batch,), for a mass in (0, 1)."""
    return quantile(distribution, 1 - mass) if mass >= _NEAR else _search(distribution, mass, True)


def _search(distribution: Distribution, mass: float, above: bool) -> Tensor:
    """The place beyond which a tail has no more than this mass: doubled steps outward, then bisection."""
    sign, rest = (1, survival) if above else (-1, cdf)
    near = quantile(distribution, 1 - _NEAR if above else _NEAR)
    step = sign * (near - quantile(distribution, 0.5)).abs().clamp(min=1.0 if is_discrete(distribution) else 1e-300)
    far = near + step
    for _ in range(_DOUBLINGS):
        short = rest(distribution, far) > mass
        if not bool(short.any()):
            break
        near, step = torch.where(short, far, near), 2 * step
        far = torch.where(short, far + step, far)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        middle = middle.floor() if is_discrete(distribution) else middle
        if bool(((middle == near) | (middle == far)).all()):
            break
        short = rest(distribution, middle) > mass
        near, far = torch.where(short, middle, near), torch.where(short, far, middle)
    return far
