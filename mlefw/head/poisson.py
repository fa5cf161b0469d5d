"""The Poisson head: counts with a log-linear rate."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Poisson, constraints, register_kl

from mlefw import inverse_link
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start

_LARGE = 30.0
"""Count from which the log-mass is computed in saddle-point form."""


class LogPoisson(Poisson):
    """Poisson distribution by log rate (*batch,), whose log-mass is accurate for tiny rates and huge counts.

    From y = 30 on, the log-mass is in saddle-point form (Loader, 2000), which is free of cancellation.
    """

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        large = value >= _LARGE
        small = torch.where(large, torch.ones_like(value), value)
        big = torch.where(large, value, torch.full_like(value, _LARGE))
        direct = small * self.log_rate - self.rate - torch.lgamma(small + 1)
        ratio = torch.where(large, self.log_rate - big.log(), torch.zeros_like(self.log_rate))
        saddle = -big * (torch.expm1(ratio) - ratio) - 0.5 * torch.log(2 * math.pi * big) - _stirling_error(big)
        return torch.where(large, saddle, direct)


@register_kl(LogPoisson, LogPoisson)  # type: ignore[untyped-decorator]
def _divergence(p: LogPoisson, q: LogPoisson) -> Tensor:
    """KL(p, q) = λ (e^d − 1 − d), (*batch,), d being the difference of log rates; accurate for close rates."""
    d = q.log_rate - p.log_rate
    close = p.rate * (torch.expm1(d.clamp(max=1.0)) - d)
    return torch.where(d > 1.0, q.rate - p.rate - p.rate * d, close)


def _stirling_error(y: Tensor) -> Tensor:
    """lgamma(y + 1) minus Stirling's leading terms, to 1e-16 from y = 30 on."""
    square = y * y
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / y


class PoissonHead(FactorizedHead):
    """Counts whose variance equals their mean.

    Choose it first for counts, with data.exposure where rows were observed for different times or areas: its means are
    consistent whatever the variance. Where the metric `dispersion` is above one, its intervals are too narrow: choose
    `negative_binomial`.

    Domain: y in {0, 1, 2, …}.
    Link: rate = exp(eta), a log exposure is an offset of eta; or by `link` eta (identity, of additive risks), eta²
        (sqrt) and the like, for which eta has to be positive.
    NLL: exp(eta) − y eta + lgamma(y + 1).
    """

    also_known_as: ClassVar = "Poisson loss (deviance); Poisson regression"
    inverse_links: ClassVar = {"rate": inverse_link.exp}
    links: ClassVar = inverse_link.POSITIVE
    support = constraints.nonnegative_integer

    def __init__(self, start: Start = "null", link: str = "log") -> None:
        super().__init__(rate="predicted", start=start, link=link)
        self.convex, self.natural = link in ("log", "identity", "sqrt"), link == "log"

    def set_units(self, mean: float, spread: float) -> None:
        """Set center and gain of a rate that has no log link."""
        self._set_power_units(mean, spread if spread > 0 else mean or 1.0)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """The mean of the target, where the link is no logarithm."""
        return {} if self.log_link else {"rate": max(mean, 1e-6)}

    def distribution(self, eta: Tensor) -> LogPoisson:
        """The Poisson distribution for a complete eta, without forming the rate first."""
        return LogPoisson(inverse_link.log_of(self.first_link, eta[..., 0]))

    def build(self, rate: Tensor) -> LogPoisson:  # type: ignore[override]
        """The Poisson distribution with this rate."""
        return LogPoisson(rate.log())

    def information(self, eta: Tensor) -> Tensor:
        """The rate times (d log rate / d eta)², (*batch, 1, 1); for the log link it is the observed one, too."""
        column = eta[..., 0]
        log_rate = inverse_link.log_of(self.first_link, column)
        return (log_rate + 2 * inverse_link.log_slope(self.first_link, column)).exp()[..., None, None]

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The log rate of a zero may go to minus infinity."""
        if not self.log_link:
            return {}
        return {"rate": Rises(y > 0, torch.ones_like(y, dtype=torch.bool))}

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """2 (y log(y / rate) − (y − rate)), (*batch,), in a form that loses no digits near rate = y."""
        log_rate = inverse_link.log_of(self.first_link, eta[..., 0])
        ratio = log_rate - y.clamp(min=1).log()
        return 2 * torch.where(y > 0, y * (torch.expm1(ratio) - ratio), log_rate.exp())
