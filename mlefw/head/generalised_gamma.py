"""The generalised gamma head: lifetimes whose Weibull, gamma and lognormal models are special cases."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.cdf import tail
from mlefw.distribution.censored import log1mexp, log_tail
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.distribution.quadrature import half_line
from mlefw.distribution.quantile import Level, quantile
from mlefw.distribution.special import gammainc, gammaincc, gammaincinv, stirling_error
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start
from mlefw.head.lognormal import moments_of_log

_NEAR = 1e-6
"""Shape below which distribution function and quantiles are those of the lognormal with a first-order correction."""
_HIGHEST, _STEEPEST = 600.0, 80.0
"""Exponents that are large enough for a tail to have no mass, and small enough for derivatives to be finite."""
_MOST_SLOPE = 1e300
"""Slope of the log-density that counts as infinite."""
_NODES = 192
"""Nodes of the integral over a tail."""
_EVEN = 0.25
"""Shape up to which the error of Stirling's formula at 1 / shape² is its series, which is smooth at 0."""


class GeneralisedGamma(Distribution):
    """Prentice's generalised gamma distribution: w = (log y − loc) / scale has a log-gamma density with this shape.

    Shape 1 is the Weibull distribution, shape = scale the gamma distribution, 0 the lognormal, −1 the inverse Weibull.
    Shapes: loc, scale, shape (*batch,).

    Source: Prentice (1974), as in R's flexsurv (mu, sigma, Q).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive

    def __init__(self, loc: Tensor, scale: Tensor, shape: Tensor) -> None:
        self.loc, self.scale, self.shape = loc, scale, shape
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,); infinite where scale · shape is at most −1."""
        return self._log_moment(1).exp()

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,); infinite where scale · shape is at most −½."""
        second, first = self._log_moment(2), self._log_moment(1)
        spread = second + torch.log(-torch.expm1(torch.where(second.isfinite(), 2 * first - second, -1.0)))
        return torch.where(second.isfinite(), spread.exp(), math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,), in a form that is exact as the shape goes to 0."""
        log_y = value.log()
        w = (log_y - self.loc) / self.scale
        constant = self.scale.log() + log_y + 0.5 * math.log(2 * math.pi) + _stirling(self.shape)
        return -constant - w * w * _chi(self.shape * w)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch), by inversion."""
        shape = self._extended_shape(sample_shape)
        wide = GeneralisedGamma(*(p.expand(shape) for p in (self.loc, self.scale, self.shape)))
        with torch.no_grad():
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            return quantile(wide, u.clamp(min=2.0**-54))

    def _log_moment(self, order: int) -> Tensor:
        """The logarithm of E Y^order, (*batch,); infinite where there is none.

        With k = 1 / shape² and s = order scale / shape it is order loc + lgamma(k + s) − lgamma(k) − s log k for
        k + s > 0. By Stirling's formula nothing cancels for a small shape.
        """
        v = order * self.scale * self.shape
        inside = torch.where(v > -1, v, torch.zeros_like(v))
        # ((1 + v) log(1 + v) − v) / v², from its series near 0.
        near = inside.abs() < 0.05
        small = torch.where(near, inside, torch.zeros_like(inside))
        series = sum((-small) ** n / ((n + 1) * (n + 2)) for n in range(16))
        big = torch.where(near, torch.ones_like(inside), inside)
        ratio = torch.where(near, series, ((1 + big) * torch.log1p(big) - big) / big.square())
        leading = (order * self.scale).square() * ratio - 0.5 * torch.log1p(inside)
        # δ(k + s) = δ(k (1 + v)) is that of a shape divided by √(1 + v).
        errors = _stirling(self.shape / (1 + inside).sqrt()) - _stirling(self.shape)
        return torch.where(v > -1, order * self.loc + leading + errors, math.inf)


def _chi(v: Tensor) -> Tensor:
    """(exp(v) − 1 − v) / v², from its series near 0."""
    near = v.abs() < 0.5
    small, big = torch.where(near, v, torch.zeros_like(v)), torch.where(near, torch.ones_like(v), v)
    series = torch.ones_like(v)
    for k in range(17, 2, -1):
        series = 1 + small / k * series
    return torch.where(near, 0.5 * series, (torch.expm1(big) - big) / big.square())


def _stirling(shape: Tensor) -> Tensor:
    """The error of Stirling's formula for lgamma at 1 / shape², as a smooth function of the shape."""
    square = shape.square()
    even = torch.where(shape.abs() < _EVEN, square, torch.zeros_like(square))
    fourth = even * even
    terms = 1 / 1260 - fourth * (1 / 1680 - fourth * (1 / 1188 - fourth * 691 / 360360))
    series = even * (1 / 12 - fourth * (1 / 360 - fourth * terms))
    return torch.where(shape.abs() < _EVEN, series, stirling_error(1 / square.clamp(min=_EVEN**2)))


@tail.register
def _(distribution: GeneralisedGamma, y: Tensor, above: bool) -> Tensor:
    shape = distribution.shape
    w = (y.clamp(min=0).log() - distribution.loc) / distribution.scale
    is_near = shape.abs() < _NEAR
    safe = torch.where(is_near, torch.ones_like(shape), shape)
    k = safe**-2
    # A negative shape turns the gamma variable round.
    lower, upper = gammainc(k, k * torch.exp(safe * w)), gammaincc(k, k * torch.exp(safe * w))
    far = torch.where((shape > 0) != above, lower, upper)
    root = math.sqrt(0.5)
    normal = 0.5 * torch.erfc(root * w if above else -root * w)
    density = torch.exp(-0.5 * w.square()) / math.sqrt(2 * math.pi)
    moved = shape / 6 * torch.nan_to_num((w.square() + 2) * density)
    return torch.where(is_near, normal - moved if above else normal + moved, far)


@log_tail.register
def _(distribution: GeneralisedGamma, y: Tensor, above: bool) -> Tensor:
    w = (y.log() - distribution.loc) / distribution.scale
    # A reflected w has the shape of the other sign.
    outer = _log_upper_tail(w.abs(), torch.where(w >= 0, distribution.shape, -distribution.shape))
    return torch.where((w >= 0) == above, outer, log1mexp(-outer))


def _log_upper_tail(w: Tensor, shape: Tensor) -> Tensor:
    """Logarithm of P(W > w) for w >= 0, by quadrature, which has derivatives in the shape.

    The log-density of w is concave: it is integrated relative to its value at the argument, from where it falls.
    """
    bend = (shape * w).clamp(max=_HIGHEST)
    slope = (w * _first(bend)).clamp(max=_MOST_SLOPE)
    scale = (1 / (slope + (0.5 * bend).exp() / (1 + torch.relu(-shape)))).detach()

    def relative(x: Tensor) -> Tensor:
        v = (shape * x).clamp(max=_STEEPEST)
        return torch.exp(-(bend.exp() * (x * x * _chi(v)) + x * slope))

    log_density = -0.5 * math.log(2 * math.pi) - _stirling(shape) - w * w * _chi(bend)
    return log_density + half_line(relative, scale, num_nodes=_NODES).log()


def _first(v: Tensor) -> Tensor:
    """(exp(v) − 1) / v, from its series near 0."""
    near = v.abs() < 0.5
    small, big = torch.where(near, v, torch.zeros_like(v)), torch.where(near, torch.ones_like(v), v)
    return torch.where(near, 1 + small * _chi(small), torch.expm1(big) / big)


@quantile.register
def _(distribution: GeneralisedGamma, level: Level) -> Tensor:
    shape = distribution.shape
    p = level.expand_as(shape) if isinstance(level, Tensor) else torch.full_like(shape, level)
    is_near = shape.abs() < _NEAR
    safe = torch.where(is_near, torch.ones_like(shape), shape)
    k = safe**-2
    far = (gammaincinv(k, torch.where(shape < 0, 1 - p, p)) / k).log() / safe
    score = torch.special.ndtri(p)
    w = torch.where(is_near, score - shape / 6 * (score.square() + 2), far)
    return (distribution.loc + distribution.scale * w).exp()


class GeneralisedGammaHead(FactorizedHead):
    """Lifetimes of almost any shape: Weibull, gamma and lognormal models are inside, and a fit says which is nearest.

    Choose it to compare these, or where none of them fits. Give a shape to have one optimum; a learnt shape is hard to
    tell from few rows, and may run away.

    Domain: y > 0.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` times the standard deviation of log
        y; shape Q = eta_3 (1 Weibull, Q = scale gamma, 0 lognormal). A coefficient of eta_1 is a log time ratio.
    NLL: log(scale y) + ½ log 2π + δ(1 / Q²) + (exp(Q w) − 1 − Q w) / Q², w = (log y − loc) / scale, δ being the error
        of Stirling's formula for lgamma.

    Source: Prentice (1974); Cox et al. (2007).
    """

    also_known_as: ClassVar = "generalised gamma accelerated failure time (flexsurv `gengamma`)"
    inverse_links: ClassVar = {
        "loc": inverse_link.identity,
        "scale": inverse_link.exp,
        "shape": inverse_link.identity,
    }
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.positive
    limits: ClassVar = (
        Limit("shape", 12.0, "the shape goes to infinity: times have a sharp upper end, and none lies beyond"),
        Limit("shape", -12.0, "the shape goes to minus infinity: times have a sharp lower end, and a tail of a power"),
    )
    outside: ClassVar = "durations of 0 were rounded down: give half the unit of the clock, or choose head=gaussian"
    log_link = True

    def __init__(
        self,
        scale: ParameterSource = "shared",
        shape: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        super().__init__(loc="predicted", scale=scale, shape=shape, scale_floor=scale_floor, start=start)
        given = not isinstance(shape, str)
        self.convex = given and not isinstance(scale, str)
        # At a given shape log y has a log-concave location-scale density, whose NLL is convex in (loc / scale,
        # 1 / scale) (Burridge, 1981).
        self.unimodal = given and scale != "predicted"

    def set_units(self, mean: float, spread: float) -> None:
        """Set center, gain and floor from the moments of log y; a shape has no unit."""
        super().set_units(*moments_of_log(mean, spread))
        for column, name in enumerate(self.eta_names + self.shared_names):
            if name == "shape":
                self.center[column], self.gain[column] = 0.0, 1.0

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough location and scale of log y by the method of moments, with a shape between lognormal and Weibull."""
        return super().rough(*moments_of_log(mean, spread)) | {"shape": 0.5}

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at which the density of y is centred, log y, as both ends; None if the scale is fixed."""
        return super().fitted_between(y.log())

    def build(self, loc: Tensor, scale: Tensor, shape: Tensor) -> GeneralisedGamma:  # type: ignore[override]
        """GeneralisedGamma(loc, scale, shape)."""
        return GeneralisedGamma(loc, scale.expand_as(loc), shape.expand_as(loc))
