"""The Weibull head: lifetimes whose hazard rises or falls."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Weibull as TorchWeibull
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.distribution.censored import log_tail, log_tail_from_hazard
from mlefw.distribution.crps import crps
from mlefw.distribution.incomplete import gammainc
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_EULER = 0.5772156649015329
"""The Euler–Mascheroni constant."""


class Weibull(TorchWeibull):
    """Weibull distribution by log scale and shape, each (*batch,); its log-density uses log y only."""

    def __init__(self, log_scale: Tensor, shape: Tensor) -> None:
        self.log_scale, self.shape = log_scale, shape
        super().__init__(log_scale.exp(), shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        log_y = value.log()
        z = self.shape * (log_y - self.log_scale)
        return z - z.exp() + self.shape.log() - log_y


@log_tail.register
def _(distribution: Weibull, y: Tensor, above: bool) -> Tensor:
    return log_tail_from_hazard(torch.exp(distribution.shape * (y.log() - distribution.log_scale)), above)


@crps.register
def _(distribution: Weibull, y: Tensor) -> Tensor:
    """E|X − y| − ½ E|X − X'|, the smaller of two draws being Weibull as well (Jordan et al., 2019)."""
    inside = y.clamp(min=0)
    hazard = (distribution.shape * (inside.log() - distribution.log_scale)).exp()
    mean = (distribution.log_scale + torch.lgamma(1 + 1 / distribution.shape)).exp()
    below = gammainc(1 + 1 / distribution.shape, hazard)
    spread = mean * torch.exp(-math.log(2) / distribution.shape)
    return (y - inside).abs() + inside * (1 - 2 * torch.exp(-hazard)) - 2 * mean * below + spread


class WeibullHead(FactorizedHead):
    """Lifetimes whose hazard rises (shape above 1: wear) or falls (below 1: early failures) as a power of time.

    Choose it for times to failure, wind speeds and breaking strengths. A coefficient of eta is a log time ratio
    (accelerated failure time); times minus the shape it is a log hazard ratio (proportional hazards).

    Domain: y > 0.
    Link: scale = exp(eta_1), the 63 % quantile; shape = exp(eta_2).
    NLL: z − log shape + log y − shape (log y − eta_1), z = (y / scale)^shape.
    """

    also_known_as: ClassVar = "Weibull regression, accelerated failure time"
    inverse_links: ClassVar = {"scale": inverse_link.exp, "shape": inverse_link.exp}
    sharpening: ClassVar = frozenset({"shape"})
    support = constraints.positive
    outside: ClassVar = "durations of 0 were rounded down: give half the unit of the clock, or choose head=gaussian"

    def __init__(self, shape: ParameterSource = "shared", start: Start = "null") -> None:
        super().__init__(scale="predicted", shape=shape, start=start)
        self.convex = not isinstance(shape, str)
        # log y has a log-concave location-scale density, whose NLL is convex in (loc / scale, 1 / scale)
        # (Burridge, 1981).
        self.unimodal = shape != "predicted"

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough scale and shape by the method of moments (Justus et al., 1978), within a tenth."""
        return {"scale": mean, "shape": min(max((mean / max(spread, 1e-3 * mean)) ** 1.086, 0.3), 30.0)}

    def distribution(self, eta: Tensor) -> Weibull:
        """The Weibull distribution for a complete eta, without forming the scale first."""
        return Weibull(eta[..., 0], self.params(eta)["shape"].expand(eta.shape[:-1]))

    def build(self, scale: Tensor, shape: Tensor) -> Weibull:  # type: ignore[override]
        """The Weibull distribution with this scale and shape."""
        return Weibull(scale.log(), shape.expand_as(scale))

    def information(self, eta: Tensor) -> Tensor:
        """The expected information in (log scale, log shape)."""
        shape = self.distribution(eta).shape
        both = -shape * (1 - _EULER)
        own = torch.full_like(shape, math.pi**2 / 6 + (1 - _EULER) ** 2)
        whole = torch.stack([torch.stack([shape.square(), both], -1), torch.stack([both, own], -1)], -1)
        return whole[..., : eta.shape[-1], : eta.shape[-1]]
