"""The log-logistic head: positive numbers whose logarithm is logistic."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw.distribution.cdf import tail
from mlefw.distribution.censored import log_tail
from mlefw.head.location_scale import LocationScaleHead
from mlefw.head.logistic import Logistic
from mlefw.head.lognormal import moments_of_log


class LogLogistic(Distribution):
    """Distribution of exp(X) for a logistic X with location and scale (*batch,); Fisk's, with shape 1 / scale."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.log = Logistic(loc, scale)
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,); infinite where the scale is at least 1."""
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,); infinite where the scale is at least ½."""
        finite = self._moment(2) - self._moment(1).square()
        return torch.where(self.scale < 0.5, finite, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        return self.log.log_prob(value.log()) - value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1)."""
        return self.log.icdf(value).exp()

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        return self.log.rsample(sample_shape).exp()

    def _moment(self, order: int) -> Tensor:
        """E Y^order = exp(order · loc) · x / sin x with x = π · order · scale; infinite from x = π on."""
        x = math.pi * order * self.scale
        inside = torch.where(x < math.pi, x, torch.ones_like(x))
        return torch.where(x < math.pi, (order * self.loc).exp() * inside / torch.sin(inside), math.inf)


@tail.register
def _(distribution: LogLogistic, y: Tensor, above: bool) -> Tensor:
    return tail(distribution.log, y.clamp(min=0).log(), above)


@log_tail.register
def _(distribution: LogLogistic, y: Tensor, above: bool) -> Tensor:
    return log_tail(distribution.log, y.log(), above)


class LogLogisticHead(LocationScaleHead):
    """Lifetimes whose hazard rises and then falls, with odds of survival in proportion.

    Choose it over `weibull` where the risk passes a peak, and over `lognormal` for closed forms under censoring. A
    coefficient of eta is a log time ratio (accelerated failure time); divided by minus the scale it is a log odds ratio
    of survival. exp(eta) is the median; the mean exists for a scale below 1.

    Domain: y > 0.
    Link: loc = eta_1, the logarithm of the median; scale = max(exp(eta_2), floor), the floor being `scale_floor` times
        the standard deviation of log y.
    NLL: log scale + log y + u + 2 log(1 + exp(−u)), u = (log y − loc) / scale.

    Source: Bennett (1983).
    """

    also_known_as: ClassVar = "log-logistic (Fisk) accelerated failure time, proportional odds of survival"
    location_information = 1 / 3
    scale_information: ClassVar = (3 + math.pi**2) / 9
    support = constraints.positive
    outside: ClassVar = "durations of 0 were rounded down: give half the unit of the clock, or choose head=gaussian"
    log_link = True

    def set_units(self, mean: float, spread: float) -> None:
        """Set center, gain and floor from the moments of log y, obtained from those of y by the method of moments."""
        super().set_units(*moments_of_log(mean, spread))

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough location and scale of log y by the method of moments."""
        loc, deviation = moments_of_log(mean, spread)
        return super().rough(loc, deviation * math.sqrt(3) / math.pi)

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at which the density of y is centred, log y, as both ends; None if the scale is fixed."""
        return super().fitted_between(y.log())

    def build(self, loc: Tensor, scale: Tensor) -> LogLogistic:  # type: ignore[override]
        """LogLogistic(loc, scale)."""
        return LogLogistic(loc, scale.expand_as(loc))
