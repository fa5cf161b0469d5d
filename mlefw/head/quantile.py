"""The quantile head: the pinball loss of one level, as the likelihood of an asymmetric Laplace distribution."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw.distribution.cdf import tail
from mlefw.distribution.parameter import ParameterSource
from mlefw.errors import UsageError
from mlefw.head.head import Start
from mlefw.head.location_scale import LocationScaleHead


class AsymmetricLaplace(Distribution):
    """Density level (1 − level) exp(−ρ(u)) / scale, u = (y − loc) / scale, ρ = u (level − 1{u < 0}).

    The location is the quantile at the level, a number in (0, 1). Shapes: loc and scale (*batch,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, level: float) -> None:
        self.loc, self.scale, self.level = loc, scale, level
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        t = self.level
        return self.loc + self.scale * ((1 - 2 * t) / (t * (1 - t)))

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        t = self.level
        return self.scale.square() * ((1 - 2 * t + 2 * t * t) / (t * (1 - t)) ** 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value - self.loc) / self.scale
        return math.log(self.level * (1 - self.level)) - self.scale.log() - pinball(u, self.level)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1), in closed form on either side of the location."""
        t, below = self.level, value < self.level
        left = torch.where(below, value / t, torch.ones_like(value)).log() / (1 - t)
        right = -torch.where(below, torch.ones_like(value), (1 - value) / (1 - t)).log() / t
        return self.loc + self.scale * torch.where(below, left, right)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        shape, tiny = self._extended_shape(sample_shape), torch.finfo(self.loc.dtype).tiny
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny))


def pinball(residual: Tensor, level: float) -> Tensor:
    """The pinball (check) loss, level · r for r > 0 and (level − 1) · r below (Koenker & Bassett, 1978)."""
    return torch.maximum(level * residual, (level - 1) * residual)


@tail.register
def _(distribution: AsymmetricLaplace, y: Tensor, above: bool) -> Tensor:
    u, t = (y - distribution.loc) / distribution.scale, distribution.level
    left, right = t * torch.exp((1 - t) * u.clamp(max=0)), (1 - t) * torch.exp(-t * u.clamp(min=0))
    return torch.where(u < 0, 1 - left, right) if above else torch.where(u < 0, left, 1 - right)


class QuantileHead(LocationScaleHead):
    """A quantile of y given x, at a given level: what is exceeded in a share 1 − level of rows.

    Choose it where a bound is wanted rather than a mean: a stock that suffices nine times in ten, a growth chart. The
    location does not depend on the shape of the noise; the rest of the distribution, its intervals and its NLL do, and
    the NLL of one level cannot be compared with that of another: rank fits of a level by `pinball`. At level 0.5 it is
    `laplace`, with half its scale.

    Standard errors of the exact estimate are those of Hendricks & Koenker (1992), which do not ask for the noise to be
    asymmetric Laplace.

    Domain: y real.
    Link: loc = eta_1, the quantile at the level `quantile`; scale = max(exp(eta_2), floor), the floor being
        `scale_floor` · sd(y).
    NLL: log scale − log(level (1 − level)) + ρ(u), u = (y − loc) / scale, ρ = u (level − 1{u < 0}).

    Source: Koenker & Bassett (1978); Koenker & Machado (1999) for the likelihood.
    """

    also_known_as: ClassVar = "pinball (check) loss, quantile regression; asymmetric Laplace likelihood"
    scale_information: ClassVar = 1.0
    support = constraints.real

    def __init__(
        self,
        quantile: float = 0.5,
        scale: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        if not 0 < quantile < 1:
            raise UsageError(f"head.quantile={quantile}: expected a probability above 0 and below 1")
        super().__init__(scale, scale_floor, start)
        self.level = quantile
        self.location_information = quantile * (1 - quantile)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """The normal quantile of a target of this mean and standard deviation, and half the standard deviation."""
        score = float(torch.special.ndtri(torch.tensor(self.level, dtype=torch.float64)))
        rough = super().rough(mean, spread)
        return {"loc": mean + score * spread, "scale": 0.5 * rough["scale"]}

    def build(self, loc: Tensor, scale: Tensor) -> AsymmetricLaplace:  # type: ignore[override]
        """AsymmetricLaplace(loc, scale, level)."""
        return AsymmetricLaplace(loc, scale.expand_as(loc), self.level)

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL with |u| smoothed to √(u² + kink²) − kink, u being the residual in units of the scale, (*batch,)."""
        distribution = self.build(**self.params(eta))
        u = (y - distribution.loc) / distribution.scale
        rounded: Tensor = 0.5 * ((u * u + self.kink**2).sqrt() - self.kink) + (self.level - 0.5) * u
        return rounded + distribution.scale.log() - math.log(self.level * (1 - self.level))
