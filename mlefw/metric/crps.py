"""The continuous ranked probability score, in closed form."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Laplace, Normal, Poisson

from mlefw import predictive
from mlefw.metric.base import Metric


@singledispatch
def crps(distribution: Distribution, y: Tensor) -> Tensor:
    """CRPS of each row, (n,), in the unit of y (Gneiting & Raftery, 2007).

    Without a closed form: the pinball loss of the quantiles, 2 ∫ (1{y < q} − p)(q − y) dp, at 99 equal-mass midpoints.
    """
    total = torch.zeros_like(distribution.mean)
    levels = [(k + 0.5) / 99 for k in range(99)]
    for level in levels:
        q = predictive.quantile(distribution, level)
        total += 2 * ((y < q).to(q.dtype) - level) * (q - y) / len(levels)
    return total


@crps.register
def _(distribution: Normal, y: Tensor) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    return distribution.scale * (u * torch.erf(u / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


@crps.register
def _(distribution: Laplace, y: Tensor) -> Tensor:
    u = (y - distribution.loc).abs() / distribution.scale
    return distribution.scale * (u + torch.exp(-u) - 0.75)


@crps.register
def _(distribution: Bernoulli, y: Tensor) -> Tensor:
    return (distribution.probs - y).square()


@crps.register
def _(distribution: Poisson, y: Tensor) -> Tensor:
    rate = distribution.rate
    bessel = torch.special.i0e(2 * rate) + torch.special.i1e(2 * rate)
    mass = distribution.log_prob(y.floor()).exp()
    return (y - rate) * (2 * predictive.cdf(distribution, y) - 1) + rate * (2 * mass - bessel)


class Crps(Metric):
    """`crps`: mean continuous ranked probability score, in the unit of y; for a point forecast, its absolute error."""

    population: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("total")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        self.population += weight.sum()
        self.total += (weight * crps(distribution, y)).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figure."""
        return {"crps": self.total / self.population}
