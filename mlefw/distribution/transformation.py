"""A distribution that a monotone transformation, in Bernstein polynomials, turns into a standard one."""

import math
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid, softplus
from torch.types import _size

from mlefw.distribution.awaited import awaited
from mlefw.distribution.cdf import tail
from mlefw.distribution.precision import promote
from mlefw.distribution.quadrature import half_line
from mlefw.distribution.quantile import Level, quantile

Noise = Literal["normal", "logistic", "minimum"]
"""The standard distribution: normal, logistic, or that of the minimum, P(Z <= z) = 1 − exp(−exp(z))."""

_CUTS = (1e-12, 1e-5, 0.005, 0.12, 0.5, 0.88, 0.995, 1 - 1e-5, 1 - 1e-12)
"""Levels of the quantiles between which moments are integrated."""
_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(16))
_STEPS = 100
"""Most steps to a quantile."""
_ROUNDING = 4e-16
"""Relative error at which a quantile is found."""


class Transformation(Distribution):
    """P(Y <= y) = F(h(y) − shift), h increasing: a Bernstein polynomial on [low, high], and linear outside.

    With t = (y − low) / (high − low), h = Σ_k θ_k C(M, k) t^k (1 − t)^(M − k), θ_0 = 0, θ_k = θ_(k−1) + gap_k.

    Source: Hothorn, Möst & Bühlmann (2018).

    Shapes: shift (*batch,); gaps (*batch, M), not negative; low and high, scalars.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, shift: Tensor, gaps: Tensor, low: Tensor, high: Tensor, noise: Noise = "logistic") -> None:
        self.shift, self.gaps, self.noise = promote(shift), promote(gaps), noise
        self.low, self.high = low.to(self.shift.dtype), high.to(self.shift.dtype)
        self._coefficients = torch.cat([torch.zeros_like(self.gaps[..., :1]), self.gaps.cumsum(-1)], -1)
        super().__init__(shift.shape, validate_args=False)

    def transform(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The transformation h of y and its derivative, each broadcast over (*batch,)."""
        length = self.high - self.low
        t = (value - self.low) / length
        inside = t.clamp(0, 1)
        h, slope = self._polynomial(inside)
        return h + slope * (t - inside), slope / length

    def _polynomial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The transformation and its derivative at t in [0, 1]."""
        # Sums of positive terms: no difference of coefficients loses digits.
        return _bernstein(self._coefficients, t), self.gaps.shape[-1] * _bernstein(self.gaps, t)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        h, slope = self.transform(value)
        return _log_density(h - self.shift, self.noise) + slope.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    @torch.no_grad()
    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1): by Newton's method on [low, high], in closed form outside."""
        order, top = self.gaps.shape[-1], self.gaps.sum(-1)
        h = _quantile(value, self.noise) + self.shift
        low, high = torch.zeros_like(h), torch.ones_like(h)
        outside = (h <= 0) | (h >= top)
        t = (h / top).clamp(0.01, 0.99)
        for _ in range(_STEPS):
            reached, slope = self._polynomial(t)
            low, high = torch.where(reached < h, t, low), torch.where(reached < h, high, t)
            found = ((reached - h).abs() <= _ROUNDING * (1 + h.abs())) | (high - low <= _ROUNDING) | outside
            if awaited(found.all()):
                break
            new = t - (reached - h) / slope
            # A step out of the bracket is replaced by bisection.
            new = torch.where((new > low) & (new < high), new, (low + high) / 2)
            t = torch.where(found, t, new)
        before, after = h / (order * self.gaps[..., 0]), (h - top) / (order * self.gaps[..., -1])
        share = torch.where(h <= 0, before, torch.where(h >= top, 1 + after, t))
        return self.low + (self.high - self.low) * share

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.shift.dtype, device=self.shift.device)
        return self.icdf(u.clamp(min=2.0**-54))

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return self.low + self._moments[0]

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        return self._moments[1] - self._moments[0].square()

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y: ∫ F² below y and ∫ (1 − F)² above it, by quadrature."""
        ends = torch.cat([self._cuts, y.expand_as(self._cuts[:1])]).sort(0).values
        v, weight = _nodes(ends)
        z = self.transform(v)[0] - self.shift
        score = torch.where(v < y, _tail(z, self.noise, False), _tail(z, self.noise, True)).square()
        return (weight * score).sum((0, 1))

    @cached_property
    def _cuts(self) -> Tensor:
        """Points between which the density is smooth and the distribution function changes little, (cuts, *batch)."""
        levels = self.shift.new_tensor(_CUTS).reshape(-1, *(1 for _ in self.shift.shape))
        quantiles = self.icdf(levels.expand(-1, *self.shift.shape))
        return torch.cat([self.low.expand_as(quantiles[:1]), quantiles, self.high.expand_as(quantiles[:1])])

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """E (Y − low) and E (Y − low)², each (*batch,): over [low, high] by quadrature, and over both tails."""
        y, weight = _nodes(self._cuts.clamp(self.low, self.high))
        mass = weight * self.log_prob(y).exp()
        order, length = self.gaps.shape[-1], self.high - self.low
        below = _excess(-self.shift, self.noise, False)
        above = _excess(self.gaps.sum(-1) - self.shift, self.noise, True)
        left, right = length / (order * self.gaps[..., 0]), length / (order * self.gaps[..., -1])
        first = (mass * (y - self.low)).sum((0, 1)) - left * below[1] + length * above[0] + right * above[1]
        second = (mass * (y - self.low).square()).sum((0, 1)) + left.square() * below[2]
        second = second + length.square() * above[0] + 2 * length * right * above[1] + right.square() * above[2]
        return first, second


@quantile.register
def _(distribution: Transformation, level: Level) -> Tensor:
    p = level if isinstance(level, Tensor) else distribution.shift.new_tensor(level)
    return distribution.icdf(p.expand(distribution.shift.shape))


@tail.register
def _(distribution: Transformation, y: Tensor, above: bool) -> Tensor:
    return _tail(distribution.transform(y)[0] - distribution.shift, distribution.noise, above)


def _nodes(ends: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss–Legendre rule between ends (cuts, *batch): each (16, cuts − 1, *batch)."""
    half, shape = (ends[1:] - ends[:-1]) / 2, (-1, *(1 for _ in ends.shape))
    node, weight = (part.to(half).reshape(shape) for part in (_NODES, _WEIGHTS))
    return ends[:-1] + half * (1 + node), half * weight


def _bernstein(coefficients: Tensor, t: Tensor) -> Tensor:
    """The Bernstein polynomial with these coefficients (*batch, order + 1) at t in [0, 1], broadcast over (*batch,).

    By Horner's rule in the ratio of the smaller to the larger of t and 1 − t.
    """
    order, right = coefficients.shape[-1] - 1, t > 0.5
    larger = torch.where(right, t, 1 - t)
    ratio = torch.where(right, 1 - t, t) / larger
    terms = [math.comb(order, k) * one for k, one in enumerate(coefficients.unbind(-1))]
    total = torch.where(right, terms[0], terms[-1])
    for k in range(1, order + 1):
        total = total * ratio + torch.where(right, terms[k], terms[order - k])
    return total * larger**order


def _log_density(z: Tensor, noise: Noise) -> Tensor:
    if noise == "normal":
        return -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    return logsigmoid(z) + logsigmoid(-z) if noise == "logistic" else z - z.exp()


def _tail(z: Tensor, noise: Noise, above: bool) -> Tensor:
    """P(Z > z) if `above`, else P(Z <= z)."""
    if noise == "normal":
        return 0.5 * torch.erfc(z * (math.sqrt(0.5) if above else -math.sqrt(0.5)))
    if noise == "logistic":
        return torch.sigmoid(-z if above else z)
    return torch.exp(-z.exp()) if above else -torch.expm1(-z.exp())


def _quantile(p: Tensor, noise: Noise) -> Tensor:
    if noise == "normal":
        return torch.special.ndtri(p)
    return p.log() - torch.log1p(-p) if noise == "logistic" else (-torch.log1p(-p)).log()


def _excess(z: Tensor, noise: Noise, above: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The mass of Z beyond z, and E |Z − z| and E |Z − z|² of that part, each (*batch,)."""
    # The integrands decay over about this length: the rest of the distribution, or what the tail has beyond z.
    out = z if above else -z
    steep = torch.zeros_like(z)
    if noise == "normal":
        steep = softplus(out)
    elif noise == "minimum" and above:
        steep = out.clamp(min=0).expm1()
    scale = (1 + torch.relu(-out)) / (1 + steep)
    # The upper tail of the minimum ends so suddenly that it takes more nodes.
    sign, count = (1.0 if above else -1.0), 192 if noise == "minimum" and above else 96

    def beyond(d: Tensor) -> Tensor:
        return _tail(z + sign * d, noise, above)

    first = half_line(beyond, scale, count)
    return _tail(z, noise, above), first, half_line(lambda d: 2 * d * beyond(d), scale, count)
