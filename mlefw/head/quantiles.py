"""The head of several quantiles: pinball losses of several levels at once, predicted without crossing."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.distribution.quantiles import Quantiles
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start
from mlefw.head.quantile import QuantileHead

_MOST = 1000
"""Most levels: a larger number in a configuration file could exhaust the memory."""


class QuantilesHead(FactorizedHead):
    """Several quantiles of y given x, which do not cross in any row, be it far outside the training rows.

    Choose it where a few bounds are wanted, and no named density fits. The columns of eta are the quantiles; a row in
    which they are not in order gets them sorted, by which the sum of pinball losses never rises and often falls. The
    distribution between the quantiles is uniform and beyond them exponential, so that intervals, draws and the CRPS
    are defined.

    The NLL is a composite one, the mean over the levels of the NLL of `head=quantile`: each level has an asymmetric
    Laplace distribution of its own, so it is not that of one density of y. exp(−NLL) has a mass of at most 1, so the
    NLL is no less than that of some density, but ranks of heads should be by `crps` or `pinball`. Levels share no
    parameter in a linear model: the exact estimate is that of each level alone, with its certificate and its standard
    errors (Hendricks & Koenker, 1992).

    Domain: y real.
    Link: quantile k = eta_k, in order; scale_k = max(exp(eta), floor), learnt for each level, or fixed for all, the
        floor being `scale_floor` · sd(y).
    NLL: the mean over k of log scale_k − log(level_k (1 − level_k)) + ρ_k((y − eta_k) / scale_k), ρ_k(u) =
        u (level_k − 1{u < 0}).

    Source: Koenker & Bassett (1978); Chernozhukov, Fernández-Val & Galichon (2010) for the order; Varin, Reid & Firth
    (2011) for composite likelihoods.

    Args:
        levels: at least two probabilities, in increasing order.
        scale: `shared`, one learnt for each level, or a number for all.
        scale_floor: least scale, as a share of sd(y).
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "sum of pinball losses, multi-quantile regression, non-crossing quantiles"
    composite: ClassVar = True
    takes_offset: ClassVar = False
    support = constraints.real

    def __init__(
        self,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        scale: str | float = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        told = f"head.levels={list(levels)}: expected"
        if len(levels) < 2:
            raise UsageError(f"{told} at least two probabilities, or for one head=quantile head.quantile=0.5")
        if len(levels) > _MOST:
            raise UsageError(f"head.levels has {len(levels)} probabilities: expected at most {_MOST}")
        if not all(a < b for a, b in pairwise([0.0, *levels, 1.0])):
            raise UsageError(f"{told} probabilities above 0 and below 1, in increasing order")
        names = [f"q{100 * level:.10g}".replace(".", "_") for level in levels]
        if len(set(names)) < len(names):
            raise UsageError(f"{told} levels that differ by more than 1e-10")
        if scale == "predicted":
            raise UsageError("head.scale=predicted: expected shared, or a number; head=quantile predicts a scale")
        scales = [f"scale_{name}" for name in names]
        links = dict.fromkeys(names, inverse_link.identity) | dict.fromkeys(scales, inverse_link.exp)
        self.inverse_links, self.collapsible = links, frozenset(scales)  # type: ignore[misc]
        sources = dict.fromkeys(names, "predicted") | dict.fromkeys(scales, scale)
        super().__init__(start=start, scale_floor=scale_floor, **sources)  # type: ignore[arg-type]
        self.levels, self.scale = tuple(float(level) for level in levels), scale
        self.convex = not self.shared_dim

    def build(self, **params: Tensor) -> Quantiles:
        """Quantiles(loc, scale, levels), from the named parameters."""
        values, count = list(params.values()), len(self.levels)
        loc = torch.stack(values[:count], -1)
        scale = torch.stack([value.expand(loc.shape[:-1]) for value in values[count:]], -1)
        return Quantiles(loc, scale, self.levels)

    def part(self, k: int) -> QuantileHead:
        """The head of one level, with the units of its columns and no floor."""
        head = QuantileHead(self.levels[k], self.scale, self.scale_floor, self.start).double()  # type: ignore[arg-type]
        at = [k, *([len(self.levels) + k] if self.shared_dim else [])]
        head.center.copy_(self.center[at])
        head.gain.copy_(self.gain[at])
        return head

    def information(self, eta: Tensor) -> Tensor:
        """The mean over the levels of the expected information of each, were y asymmetric Laplace at its level."""
        distribution = self.distribution(eta)
        location = distribution.p * (1 - distribution.p) / distribution.raw_scale.square()
        diagonal = torch.cat([location, torch.ones_like(location)], -1)[..., : eta.shape[-1]]
        return torch.diag_embed(diagonal / len(self.levels))

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL with |u| smoothed to √(u² + kink²) − kink, u being the residual in units of the scale, (*batch,)."""
        own = self.distribution(eta)
        u = (y.unsqueeze(-1) - own.raw) / own.raw_scale
        rounded = 0.5 * ((u * u + self.kink**2).sqrt() - self.kink) + (own.p - 0.5) * u
        return (rounded + own.raw_scale.log() - (own.p * (1 - own.p)).log()).mean(-1)

    def distribution(self, eta: Tensor) -> Quantiles:
        """The quantiles for a complete eta."""
        return self.build(**self.params(eta))
