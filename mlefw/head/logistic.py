"""The logistic head: noise a little heavier than Gaussian, with closed forms for all that is censored."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw.distribution.cdf import tail
from mlefw.distribution.censored import log_tail
from mlefw.head.location_scale import LocationScaleHead


class Logistic(Distribution):
    """Logistic distribution, whose distribution function is sigmoid((y − loc) / scale); loc and scale are (*batch,)."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The location, (*batch,)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance π² scale² / 3, (*batch,)."""
        return self.scale.square() * (math.pi**2 / 3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value - self.loc) / self.scale
        return logsigmoid(u) + logsigmoid(-u) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1)."""
        return self.loc + self.scale * (value.log() - torch.log1p(-value))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        shape, tiny = self._extended_shape(sample_shape), torch.finfo(self.loc.dtype).tiny
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny))

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y (Jordan et al., 2019)."""
        u = (y - self.loc) / self.scale
        return self.scale * (u - 2 * logsigmoid(u) - 1)


@tail.register
def _(distribution: Logistic, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    return torch.sigmoid(-u if above else u)


@log_tail.register
def _(distribution: Logistic, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    return logsigmoid(-u if above else u)


class LogisticHead(LocationScaleHead):
    """Logistic observation noise: tails like Laplace's, a smooth middle like a Gaussian's, and one optimum.

    Choose it over `gaussian` where tails are a little heavier; where rows are far off, `student_t`. The scale is not a
    standard deviation, which is 1.81 times as large.

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y).
    NLL: log scale + u + 2 log(1 + exp(−u)), u = (y − loc) / scale.
    """

    also_known_as: ClassVar = "log-cosh loss, with its scale"
    location_information = 1 / 3
    scale_information: ClassVar = (3 + math.pi**2) / 9
    support = constraints.real

    def build(self, loc: Tensor, scale: Tensor) -> Logistic:  # type: ignore[override]
        """Logistic(loc, scale)."""
        return Logistic(loc, scale.expand_as(loc))
