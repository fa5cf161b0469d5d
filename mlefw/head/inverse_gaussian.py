"""The inverse Gaussian head: positive numbers with a sharp rise and a long tail."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.cdf import tail
from mlefw.distribution.censored import log1mexp
from mlefw.distribution.parameter import ParameterSource
from mlefw.distribution.special import log_normal_cdf
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start


class InverseGaussian(Distribution):
    """Inverse Gaussian distribution by log mean and dispersion, each (*batch,): variance = dispersion · mean³."""

    arg_constraints: ClassVar[dict[str, Any]] = {"log_mean": constraints.real, "dispersion": constraints.positive}
    support = constraints.positive

    def __init__(self, log_mean: Tensor, dispersion: Tensor) -> None:
        self.log_mean, self.dispersion = log_mean, dispersion
        super().__init__(log_mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean exp(log_mean), (*batch,)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance dispersion · mean³, (*batch,)."""
        return self.dispersion * (3 * self.log_mean).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        log_y = value.log()
        half = 0.5 * unit_deviance(self.log_mean, value) / self.dispersion
        return -0.5 * (math.log(2 * math.pi) + self.dispersion.log() + 3 * log_y) - half

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch), from a χ² variate and a choice between two roots (Michael et al., 1976)."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            mean = self.mean.expand(shape)
            half = 0.5 * self.dispersion * mean * torch.randn(shape, dtype=mean.dtype, device=mean.device).square()
            # The smaller root of y / mean, 1 + half − √(half² + 2 half), without cancellation.
            ratio = 1 / (1 + half + (half * (half + 2)).sqrt())
            first = torch.rand(shape, dtype=mean.dtype, device=mean.device) <= 1 / (1 + ratio)
            return mean * torch.where(first, ratio, 1 / ratio)


def unit_deviance(log_mean: Tensor, y: Tensor) -> Tensor:
    """The unit deviance (y − mean)² / (mean² y), (*batch,)."""
    return torch.expm1(y.log() - log_mean).square() / y


@tail.register
def _(distribution: InverseGaussian, y: Tensor, above: bool) -> Tensor:
    y = y.clamp(min=torch.finfo(y.dtype).tiny)
    root = (distribution.dispersion * y).rsqrt()
    ratio = torch.exp(y.log() - distribution.log_mean)
    # exp(2 / (dispersion · mean)) overflows for a small dispersion, and its product with the normal tail does not.
    far = 2 / (distribution.dispersion * distribution.mean) + log_normal_cdf(-root * (ratio + 1))
    near = log_normal_cdf(root * (1 - ratio) if above else root * (ratio - 1))
    if not above:
        return near.exp() + far.exp()
    return (near + log1mexp((near - far).clamp(min=torch.finfo(y.dtype).tiny))).exp()


class InverseGaussianHead(FactorizedHead):
    """Positive numbers whose variance grows with the cube of their mean: first passage times, claim sizes.

    Choose it over `gamma` where the tail is heavier, and very small values are rarer. Its mean is consistent whatever
    the distribution.

    Domain: y > 0.
    Link: mean = exp(eta_1), or by `link` eta_1^(−1/2) (inverse_squared, the canonical one), 1 / eta_1 (inverse) and the
        like, for which eta_1 has to be positive; dispersion φ = max(exp(eta_2), floor), variance = φ mean³. The floor
        is a relative spread of `scale_floor` at the mean of y.
    NLL: ½ log(2π φ y³) + (y − mean)² / (2 φ mean² y).

    Source: McCullagh & Nelder (1989); Tweedie (1957).
    """

    also_known_as: ClassVar = "the inverse Gaussian generalised linear model"
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
        # (y / mean − 1)² / y is convex in 1 / mean and in 1 / mean², and in neither the mean nor its logarithm. Where
        # it is least does not depend on a shared dispersion.
        is_convex = link in ("inverse", "inverse_squared")
        self.convex = is_convex and not isinstance(dispersion, str)
        self.unimodal = is_convex and dispersion != "predicted"

    def set_units(self, mean: float, spread: float) -> None:
        """Set the floor and the center of the dispersion, whose unit is that of 1 / y, from the target's moments."""
        self._set_power_units(mean, spread if spread > 0 else mean)
        if "dispersion" in self.fixed:
            return
        self.floor.fill_(self.scale_floor**2 / mean)
        column = (self.eta_names + self.shared_names).index("dispersion")
        self.center[column] = math.log(self.rough(mean, spread)["dispersion"])

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough mean and dispersion by the method of moments."""
        return {"mean": mean, "dispersion": min(max((spread / mean) ** 2, 1e-3), 10.0) / mean}

    def distribution(self, eta: Tensor) -> InverseGaussian:
        """The inverse Gaussian distribution for a complete eta, without forming the mean first."""
        log_mean = inverse_link.log_of(self.first_link, eta[..., 0])
        return InverseGaussian(log_mean, self.params(eta)["dispersion"].expand(eta.shape[:-1]))

    def build(self, mean: Tensor, dispersion: Tensor) -> InverseGaussian:  # type: ignore[override]
        """The inverse Gaussian distribution with this mean and dispersion."""
        return InverseGaussian(mean.log(), dispersion.expand_as(mean))

    def information(self, eta: Tensor) -> Tensor:
        """The expected information diag(1 / (φ mean), ½) in (log mean, log φ).

        For another link the first entry is times (d log mean / d eta)².
        """
        here = self.distribution(eta)
        log_slope = inverse_link.log_slope(self.first_link, eta[..., 0])
        located = torch.exp(2 * log_slope - here.log_mean) / here.dispersion
        return torch.diag_embed(torch.stack([located, torch.full_like(located, 0.5)], -1)[..., : eta.shape[-1]])

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """(y − mean)² / (mean² y), divided by a fixed dispersion; None where the dispersion is predicted."""
        if "dispersion" in self.eta_names:
            return None
        deviance = unit_deviance(inverse_link.log_of(self.first_link, eta[..., 0]), y)
        return deviance if "dispersion" in self.shared_names else deviance / self.params(eta)["dispersion"]
