"""The Huber head: Gaussian in the middle, Laplace in the tails."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.cdf import tail
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_ROOT_2PI = math.sqrt(2 * math.pi)


class Huber(Distribution):
    """Density exp(−ρ(u)) / (scale Z), u = (y − loc) / scale, ρ = ½ u² up to |u| = delta and linear beyond.

    Z = √(2π) erf(delta / √2) + (2 / delta) exp(−½ delta²). Shapes: loc, scale, delta (*batch,).
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "delta": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, delta: Tensor) -> None:
        self.loc, self.scale, self.delta = loc, scale, delta
        # Unnormalised mass of one tail and of the middle.
        self.outer = torch.exp(-0.5 * delta * delta) / delta
        self.inner = _ROOT_2PI * torch.erf(delta * math.sqrt(0.5))
        self.normaliser = self.inner + 2 * self.outer
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The location, (*batch,)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        tails = self.outer * (4 + 4 / self.delta.square())
        return self.scale.square() * (self.inner + tails) / self.normaliser

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        distance = ((value - self.loc) / self.scale).abs()
        middle = torch.minimum(distance, self.delta)
        return -middle * (distance - 0.5 * middle) - self.scale.log() - self.normaliser.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1), in closed form for each tail and the middle."""
        lower = torch.minimum(value, 1 - value) * self.normaliser
        outside = lower < self.outer
        line = (
            torch.where(outside, lower * self.delta, torch.ones_like(lower)).log() - 0.5 * self.delta**2
        ) / self.delta
        left = torch.where(outside, line, _normal_quantile(lower - self.outer, self.delta))
        return self.loc + self.scale * torch.where(value < 0.5, left, -left)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        shape = self._extended_shape(sample_shape)
        tiny = torch.finfo(self.loc.dtype).tiny
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny))

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y: E|Y − y| − ½ E|Y − Y'|, each summed over the tails and the middle."""
        u, delta, z = ((y - self.loc) / self.scale).abs(), self.delta, self.normaliser
        inside = torch.minimum(u, delta)
        # Unnormalised ∫ |v| f(v) dv over v < −u: the tail, then the part of the middle beyond u.
        far = torch.relu(u - delta)
        moment = self.outer * torch.exp(-delta * far) * (delta + far + 1 / delta)
        moment = moment + torch.exp(-0.5 * inside.square()) - torch.exp(-0.5 * delta * delta)
        above = tail(self, self.loc + self.scale * u, True)
        error = u * (1 - 2 * above) + 2 * moment / z
        p, h = self.outer / z, 0.5 * self.inner
        square = delta * h * h + 2 * h * delta * self.outer - math.sqrt(math.pi) * torch.erf(delta)
        return self.scale * (error - 2 * (p / delta - p * p / (2 * delta) + delta / 4 - square / z**2))


def _normal_quantile(mass: Tensor, delta: Tensor) -> Tensor:
    """The u ≤ 0 with ∫ exp(−½ v²) dv = mass from −delta to u."""
    below = 0.5 * torch.erfc(delta * math.sqrt(0.5))
    return torch.special.ndtri((below + mass / _ROOT_2PI).clamp(min=torch.finfo(mass.dtype).tiny, max=0.5))


@tail.register
def _(distribution: Huber, y: Tensor, above: bool) -> Tensor:
    u, delta = (y - distribution.loc) / distribution.scale, distribution.delta
    distance = u.abs()
    line = distribution.outer * torch.exp(-delta * torch.relu(distance - delta))
    root = math.sqrt(0.5)
    middle = 0.5 * _ROOT_2PI * (torch.erfc(torch.minimum(distance, delta) * root) - torch.erfc(delta * root))
    outer = (line + middle) / distribution.normaliser
    return torch.where((u < 0) != above, outer, 1 - outer)


class HuberHead(FactorizedHead):
    """Noise that is Gaussian in the middle and Laplace in the tails: Huber's loss with its scale and normaliser.

    Choose it for a robust fit with a unique optimum: the influence of an outlier is bounded, while under `student_t`
    it goes to zero. With delta = 1.345 it is 95 % efficient on Gaussian noise. The scale is the maximum likelihood
    estimate, unlike that of M-estimators (Huber's proposal 2, scikit-learn, statsmodels RLM).

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y); delta = exp(eta_3), in
        scales.
    NLL: log Z(delta) + log scale + ρ(u); ρ = ½ u² for |u| ≤ delta, else delta |u| − ½ delta².

    Source: Huber (1964).
    """

    also_known_as: ClassVar = "Huber loss, smooth L1"
    inverse_links: ClassVar = {
        "loc": inverse_link.identity,
        "scale": inverse_link.exp,
        "delta": inverse_link.exp,
    }
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.real
    limits: ClassVar = (
        Limit("delta", 2.0, "no row lies in the tails: the Gaussian model (head=gaussian) is the limit"),
        Limit("delta", -6.0, "no row lies in the middle: the Laplace model (head=laplace) is the limit", "scale"),
    )

    def __init__(
        self,
        scale: ParameterSource = "shared",
        delta: ParameterSource = 1.345,
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        super().__init__(loc="predicted", scale=scale, delta=delta, scale_floor=scale_floor, start=start)
        given = not isinstance(delta, str)
        self.convex = given and not isinstance(scale, str)
        # In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
        self.unimodal = given and scale != "predicted"

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough location and scale, with delta = 1.345 (95 % efficiency on Gaussian noise)."""
        return super().rough(mean, spread) | {"delta": 1.345}

    def build(self, loc: Tensor, scale: Tensor, delta: Tensor) -> Huber:  # type: ignore[override]
        """Huber(loc, scale, delta)."""
        return Huber(loc, scale.expand_as(loc), delta.expand_as(loc))
