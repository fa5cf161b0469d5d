"""The lognormal head: positive numbers whose logarithm is Gaussian."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start


class LogNormal(TorchLogNormal):
    """Lognormal distribution whose log-density standardises first, so that no square can overflow."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value.log() - self.loc) / self.scale
        return -0.5 * u * u - self.scale.log() - 0.5 * math.log(2 * math.pi) - value.log()


class LognormalHead(FactorizedHead):
    """Positive numbers with multiplicative noise: incomes, sizes, concentrations.

    Choose it over `gamma` where the logarithm of y looks symmetric, and medians matter: exp(eta) is the median of y,
    its mean is larger by exp(½ scale²). It is the Gaussian head on log y, with the NLL in the units of y.

    Domain: y > 0.
    Link: loc = eta_1, the mean of log y; scale = max(exp(eta_2), floor), its standard deviation, the floor being
        `scale_floor` times that of the target.
    NLL: ½ log 2π + log scale + ½ ((log y − loc) / scale)² + log y.
    """

    also_known_as: ClassVar = "squared error of the logarithm (MSLE)"
    inverse_links: ClassVar = {"loc": inverse_link.identity, "scale": inverse_link.exp}
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.positive
    outside: ClassVar = (
        "rows with 0 need a model of their own (whether y > 0, by head=bernoulli); head=gaussian takes any"
    )
    log_link = True

    def __init__(self, scale: ParameterSource = "shared", scale_floor: float = 1e-3, start: Start = "null") -> None:
        super().__init__(loc="predicted", scale=scale, scale_floor=scale_floor, start=start)
        self.convex = not isinstance(scale, str)
        self.unimodal = scale != "predicted"

    def set_units(self, mean: float, spread: float) -> None:
        """As for a Gaussian, with the moments of log y by the method of moments."""
        super().set_units(*_of_logarithm(mean, spread))

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """By the method of moments."""
        return super().rough(*_of_logarithm(mean, spread))

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The logarithm of y."""
        return super().fitted_between(y.log())

    def build(self, loc: Tensor, scale: Tensor) -> LogNormal:  # type: ignore[override]
        """LogNormal(loc, scale)."""
        return LogNormal(loc, scale.expand_as(loc), validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """diag(1 / scale², 2) in (loc, log scale)."""
        precision = self.params(eta)["scale"].expand(eta.shape[:-1]) ** -2
        return torch.diag_embed(torch.stack([precision, 2 * torch.ones_like(precision)], -1)[..., : eta.shape[-1]])

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """(log y − loc)², over the variance where that is given; None where the scale is predicted."""
        if "scale" in self.eta_names:
            return None
        params = self.params(eta)
        square = (y.log() - params["loc"]).square()
        return square if "scale" in self.shared_names else square / params["scale"].square()


def _of_logarithm(mean: float, spread: float) -> tuple[float, float]:
    """Mean and standard deviation of log y."""
    variance = math.log1p((spread / mean) ** 2)
    return math.log(mean) - variance / 2, math.sqrt(variance)
