"""The gamma head: positive numbers whose spread grows with their mean."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Gamma as TorchGamma
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.distribution.special import stirling_error
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start


class Gamma(TorchGamma):
    """Gamma distribution by log mean and dispersion, each (*batch,), with a log-density free of cancellation."""

    def __init__(self, log_mean: Tensor, dispersion: Tensor) -> None:
        self.log_mean, self.dispersion = log_mean, dispersion
        super().__init__(1 / dispersion, (-log_mean).exp() / dispersion, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean exp(log_mean), (*batch,)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance dispersion · mean², (*batch,)."""
        return self.dispersion * self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,): a normaliser in Stirling's form, and half the unit deviance."""
        normaliser = 0.5 * (math.log(2 * math.pi) + self.dispersion.log()) + stirling_error(self.concentration)
        return -half_deviance(self.log_mean, value) / self.dispersion - normaliser - value.log()


def half_deviance(log_mean: Tensor, y: Tensor) -> Tensor:
    """Half the unit deviance of the gamma distribution, y / mean − 1 − log(y / mean)."""
    ratio = y.log() - log_mean
    return torch.expm1(ratio) - ratio


class GammaHead(FactorizedHead):
    """Positive numbers with a constant relative spread: costs, rainfall, durations.

    Choose it over `lognormal` where the mean matters (sums of claims, say): its coefficients describe the mean, and
    are consistent for the mean whatever the distribution. With `dispersion=1` it is the exponential distribution.

    Domain: y > 0.
    Link: mean = exp(eta_1), or by `link` 1 / eta_1 (inverse, the canonical one), eta_1 (identity) and the like, for
        which eta_1 has to be positive; dispersion = max(exp(eta_2), floor), variance = dispersion · mean². The shape is
        1 / dispersion. The floor is `scale_floor`²: a relative spread of `scale_floor`.
    NLL: lgamma(k) − k log k + k eta_1 − (k − 1) log y + k y exp(−eta_1), k = 1 / dispersion.

    Source: McCullagh & Nelder (1989), chapter 8, who estimate the dispersion by Pearson's statistic; here it is the
    maximum likelihood estimate.
    """

    variance_parameter: ClassVar = ("dispersion", -1.0)
    also_known_as: ClassVar = "gamma deviance; the gamma generalised linear model with log link"
    inverse_links: ClassVar = {"mean": inverse_link.exp, "dispersion": inverse_link.exp}
    links: ClassVar = inverse_link.POSITIVE
    collapsible: ClassVar = frozenset({"dispersion"})
    support = constraints.positive
    outside: ClassVar = (
        "rows with 0 need a model of their own (whether y > 0, by head=bernoulli); head=gaussian takes any"
    )

    def __init__(
        self,
        dispersion: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
        link: str = "log",
    ) -> None:
        super().__init__(mean="predicted", dispersion=dispersion, scale_floor=scale_floor, start=start, link=link)
        # The deviance is convex in eta under these links; where it is least does not depend on a shared dispersion.
        is_convex = link in ("log", "inverse")
        self.convex = is_convex and not isinstance(dispersion, str)
        self.unimodal = is_convex and dispersion != "predicted"

    def set_units(self, mean: float, spread: float) -> None:
        """Set the floor: the dispersion has no unit, and the unit of y shifts the intercept of a log mean."""
        self._set_power_units(mean, spread if spread > 0 else mean)
        if "dispersion" not in self.fixed:
            self.floor.fill_(self.scale_floor**2)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough mean and dispersion by the method of moments."""
        return {"mean": mean, "dispersion": min(max((spread / mean) ** 2, 1e-3), 10.0)}

    def distribution(self, eta: Tensor) -> Gamma:
        """The gamma distribution for a complete eta, without forming the mean first."""
        return Gamma(
            inverse_link.log_of(self.first_link, eta[..., 0]), self.params(eta)["dispersion"].expand(eta.shape[:-1])
        )

    def build(self, mean: Tensor, dispersion: Tensor) -> Gamma:  # type: ignore[override]
        """The gamma distribution with this mean and dispersion."""
        return Gamma(mean.log(), dispersion.expand_as(mean))

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The log mean of no row may go to infinity, on either side."""
        always = torch.ones_like(y, dtype=torch.bool)
        return {"mean": Rises(always, always)}

    def information(self, eta: Tensor) -> Tensor:
        """The expected information diag(k, k² ψ′(k) − k) in (log mean, log dispersion), k = 1 / dispersion.

        For another link the first entry is times (d log mean / d eta)².
        """
        k = self.distribution(eta).concentration
        spread = k * (k * torch.special.polygamma(1, k) - 1)
        located = k * torch.exp(2 * inverse_link.log_slope(self.first_link, eta[..., 0]))
        return torch.diag_embed(torch.stack([located, spread], -1)[..., : eta.shape[-1]])

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """2 (y / mean − 1 − log(y / mean)), divided by a fixed dispersion; None where the dispersion is predicted."""
        if "dispersion" in self.eta_names:
            return None
        deviance = 2 * half_deviance(inverse_link.log_of(self.first_link, eta[..., 0]), y)
        return deviance if "dispersion" in self.shared_names else deviance / self.params(eta)["dispersion"]
