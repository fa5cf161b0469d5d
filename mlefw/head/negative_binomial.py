"""The negative binomial head: overdispersed counts."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.distribution.special import stirling_error
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start

_POWERS = {"nb1": 1.0, "nb2": 2.0}
"""The power p in the variance mean + dispersion · mean^p, for each word of `variance`."""
_MOST_POWER = 3.0

_LEAST = -27.6
"""Least log dispersion, of 1e-12, that cdf and draws use; the log-mass uses the exact one."""


class NegativeBinomial(TorchNegativeBinomial):
    """Negative binomial distribution by log mean and log dispersion, each (*batch,); Poisson as the dispersion → 0.

    The log-mass is in saddle-point form (Loader, 2000), which is free of cancellation for large counts and for small
    dispersions.
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor) -> None:
        self.log_mean, self.log_dispersion = log_mean, log_dispersion
        size = -log_dispersion.clamp(min=_LEAST)
        super().__init__(size.exp(), logits=log_mean - size, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean exp(log_mean), (*batch,)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance mean + dispersion · mean², (*batch,)."""
        return self.mean + self.log_dispersion.exp() * self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        some = value > 0
        y = torch.where(some, value, torch.ones_like(value))
        size = (-self.log_dispersion.clamp(min=-200.0)).exp()
        overdispersed = -logsigmoid(-self.log_dispersion - y.log())
        normaliser = 0.5 * (torch.log(2 * math.pi * y) + overdispersed)
        normaliser = normaliser + stirling_error(y) - stirling_error(y + size) + stirling_error(size)
        counted = -half_deviance(self.log_mean, self.log_dispersion, y) - normaliser
        return torch.where(some, counted, -_zero_nll(self.log_mean, self.log_dispersion))


def half_deviance(log_mean: Tensor, log_dispersion: Tensor, y: Tensor) -> Tensor:
    """Half the unit deviance of y > 0, without cancellation near the mean; α is the dispersion.

    y log(y / mean) − (y + 1/α) log((1 + α y) / (1 + α mean)).
    """
    ratio = log_mean - y.log()
    close = ratio.abs() < 1
    d = torch.where(close, ratio, torch.zeros_like(ratio))
    at_y = log_dispersion + y.log()
    share, rest = at_y.sigmoid(), (-at_y).sigmoid()
    near = y * (torch.log1p(rest * torch.expm1(-d)) + rest * torch.expm1(d) * _log1p_ratio(share * torch.expm1(d)))
    far_mean = torch.where(close, y.log() + 1, log_mean)
    far = y * (logsigmoid(at_y) - logsigmoid(log_dispersion + far_mean))
    far = far + _zero_nll(far_mean, log_dispersion) - _zero_nll(y.log(), log_dispersion)
    return torch.where(close, near, far)


def _zero_nll(log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """The NLL of a count of zero, log(1 + α mean) / α, α being the dispersion."""
    t = log_mean + log_dispersion
    small = t < -36
    inside = torch.where(small, torch.zeros_like(t), t)
    large = torch.exp((-logsigmoid(-inside)).log() - log_dispersion)
    return torch.where(small, log_mean.exp(), large)


def _log1p_ratio(z: Tensor) -> Tensor:
    """log(1 + z) / z, from its series near zero."""
    small = z.abs() < 1e-5
    inside = torch.where(small, torch.ones_like(z), z)
    series = 1 - z * (1 / 2 - z * (1 / 3 - z / 4))
    return torch.where(small, series, torch.log1p(inside) / inside)


class NegativeBinomialHead(FactorizedHead):
    """Counts whose variance exceeds their mean: mean + dispersion · mean² (NB2), or mean + dispersion · mean^p.

    Choose it over `poisson` where the dispersion among the figures of a Poisson fit is above one, as it is for most
    counts of people and events. The Poisson distribution is its limit. Where the ratio of variance and mean does not
    grow with the mean, choose `variance=nb1`; a number between 1 and 2 lies between the two.

    Domain: y in {0, 1, 2, …}.
    Link: mean = exp(eta_1), a log exposure is an offset of eta, or by `link` eta_1 (identity), eta_1² (sqrt) and the
        like, for which eta_1 has to be positive; dispersion α = exp(eta_2). With `variance=nb1` (p = 1) or another
        power p, α below is exp(eta_2) · mean^(p − 2).
    NLL: −lgamma(y + 1/α) + lgamma(1/α) + lgamma(y + 1) + (y + 1/α) log(1 + α mean) − y log(α mean).

    Source: Lawless (1987); Cameron & Trivedi (1986) for p = 1, Greene (2008) for other powers.
    """

    also_known_as: ClassVar = "negative binomial regression (NB2, NB1, NB-P)"
    inverse_links: ClassVar = {"mean": inverse_link.exp, "dispersion": inverse_link.exp}
    links: ClassVar = inverse_link.POSITIVE
    support = constraints.nonnegative_integer
    limits: ClassVar = (
        Limit(
            "dispersion", -6.0, "the variance does not exceed the mean: the Poisson model (head=poisson) is the limit"
        ),
    )

    def __init__(
        self,
        dispersion: ParameterSource = "shared",
        variance: str | float = "nb2",
        start: Start = "null",
        link: str = "log",
    ) -> None:
        power = _POWERS.get(variance) if isinstance(variance, str) else variance
        if power is None or isinstance(power, bool) or not 0 < power <= _MOST_POWER:
            raise UsageError(f"head.variance={variance!r}: expected nb1, nb2, or a power above 0 and up to 3")
        super().__init__(mean="predicted", dispersion=dispersion, start=start, link=link)
        self.power = float(power)
        self.lone = link == "log"
        self.convex = link == "log" and not isinstance(dispersion, str) and self.power == _POWERS["nb2"]

    def set_units(self, mean: float, spread: float) -> None:
        """Set center and gain of a mean that has no log link; a dispersion has no unit."""
        self._set_power_units(mean, spread if spread > 0 else mean or 1.0)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough mean and dispersion by the method of moments."""
        mean = max(mean, 1e-6)
        return {"mean": mean, "dispersion": min(max((spread**2 - mean) / mean**self.power, 0.02), 20.0)}

    def distribution(self, eta: Tensor) -> NegativeBinomial:
        """The negative binomial distribution for a complete eta, without forming mean and dispersion first."""
        given = math.log(self.fixed["dispersion"]) if "dispersion" in self.fixed else None
        log_dispersion = eta[..., 1] if given is None else torch.full_like(eta[..., 0], given)
        return self._of_logs(inverse_link.log_of(self.first_link, eta[..., 0]), log_dispersion)

    def build(self, mean: Tensor, dispersion: Tensor) -> NegativeBinomial:  # type: ignore[override]
        """The negative binomial distribution with this mean and dispersion."""
        return self._of_logs(mean.log(), dispersion.expand_as(mean).log())

    def _of_logs(self, log_mean: Tensor, log_dispersion: Tensor) -> NegativeBinomial:
        if self.power == _POWERS["nb2"]:
            return NegativeBinomial(log_mean, log_dispersion)
        return NegativeBinomial(log_mean, log_dispersion + (self.power - 2) * log_mean)

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The log mean of a zero may go to minus infinity; for a power above 2 other ways are not known."""
        if self.power > _POWERS["nb2"] or not self.log_link:
            return {}
        return {"mean": Rises(y > 0, torch.ones_like(y, dtype=torch.bool))}

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """The unit deviance at the shared or fixed dispersion; None where it is predicted, or grows with the mean."""
        if "dispersion" in self.eta_names or self.power != _POWERS["nb2"]:
            return None
        here = self.distribution(eta)
        counted = half_deviance(here.log_mean, here.log_dispersion, y.clamp(min=1))
        return 2 * torch.where(y > 0, counted, _zero_nll(here.log_mean, here.log_dispersion))
