"""The lognormal head: positive numbers whose logarithm is Gaussian."""

import math
from typing import ClassVar

from torch import Tensor
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import constraints

from mlefw.head.location_scale import LocationScaleHead


class LogNormal(TorchLogNormal):
    """Lognormal distribution whose log-density standardises first, so that no square can overflow."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value.log() - self.loc) / self.scale
        return -0.5 * u * u - self.scale.log() - 0.5 * math.log(2 * math.pi) - value.log()


class LognormalHead(LocationScaleHead):
    """Positive numbers with multiplicative noise: incomes, sizes, concentrations.

    Choose it over `gamma` where the logarithm of y looks symmetric, and medians matter: exp(eta) is the median of y,
    its mean is larger by exp(½ scale²). It is the Gaussian head on log y, with the NLL in the units of y.

    Domain: y > 0.
    Link: loc = eta_1, the mean of log y; scale = max(exp(eta_2), floor), its standard deviation, the floor being
        `scale_floor` times that of the target.
    NLL: ½ log 2π + log scale + ½ ((log y − loc) / scale)² + log y.
    """

    also_known_as: ClassVar = "squared error of the logarithm (MSLE)"
    squared: ClassVar = True
    scale_information: ClassVar = 2.0
    support = constraints.positive
    outside: ClassVar = (
        "rows with 0 need a model of their own (whether y > 0, by head=bernoulli); head=gaussian takes any"
    )
    log_link = True

    def set_units(self, mean: float, spread: float) -> None:
        """Set center, gain and floor from the moments of log y, obtained from those of y by the method of moments."""
        super().set_units(*moments_of_log(mean, spread))

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough location and scale of log y by the method of moments."""
        return super().rough(*moments_of_log(mean, spread))

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at which the density of y is centred, log y, as both ends; None if the scale is fixed."""
        return super().fitted_between(y.log())

    def build(self, loc: Tensor, scale: Tensor) -> LogNormal:  # type: ignore[override]
        """LogNormal(loc, scale)."""
        return LogNormal(loc, scale.expand_as(loc), validate_args=False)

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """(log y − loc)², divided by a fixed scale²; None where the scale is predicted."""
        if "scale" in self.eta_names:
            return None
        params = self.params(eta)
        square = (y.log() - params["loc"]).square()
        return square if "scale" in self.shared_names else square / params["scale"].square()


def moments_of_log(mean: float, spread: float) -> tuple[float, float]:
    """Mean and standard deviation of log y for a lognormal y with this mean and standard deviation."""
    variance = math.log1p((spread / mean) ** 2)
    return math.log(mean) - variance / 2, math.sqrt(variance)
