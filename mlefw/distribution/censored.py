"""The distribution of a censored observation, and log-probabilities of tails, from which its density is computed."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Exponential,
    Laplace,
    LogNormal,
    Normal,
    StudentT,
    kl_divergence,
    register_kl,
)
from torch.distributions.constraints import Constraint
from torch.types import _size

from mlefw.distribution.cdf import cdf
from mlefw.distribution.quadrature import half_line
from mlefw.distribution.special import log_normal_cdf, stirling_error

_LOG_2 = math.log(2)


@singledispatch
def log_tail(distribution: Distribution, y: Tensor, above: bool) -> Tensor:
    """Logarithm of P(Y > y) if `above`, else of P(Y <= y), (*batch,), with gradients that hold far into the tail.

    Raises:
        NotImplementedError: this module has no formula for the distribution.
    """
    raise NotImplementedError(f"no logarithm of the tails of {type(distribution).__name__}")


@log_tail.register
def _(distribution: Normal, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    return log_normal_cdf(-u if above else u)


@log_tail.register
def _(distribution: LogNormal, y: Tensor, above: bool) -> Tensor:
    return log_tail(distribution.base_dist, y.log(), above)


@log_tail.register
def _(distribution: Laplace, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    inside = -u if above else u
    return torch.where(inside < 0, inside - _LOG_2, torch.log1p(-0.5 * torch.exp(-inside.clamp(min=0.0))))


@log_tail.register
def _(distribution: Exponential, y: Tensor, above: bool) -> Tensor:
    return log_tail_from_hazard(distribution.rate * y, above)


@log_tail.register
def _(distribution: StudentT, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    inside = -u if above else u
    outer = _log_tail_of_t(distribution.df, inside.abs())
    return torch.where(inside < 0, outer, torch.log1p(-outer.exp()))


def _log_tail_of_t(df: Tensor, u: Tensor) -> Tensor:
    """Logarithm of P(T > u) for u >= 0, by quadrature, which has derivatives in the degrees of freedom.

    With u = √df · sinh(s) the density in s is proportional to cosh(s)^−df, whose logarithm is concave: it is integrated
    relative to its value at the argument.
    """
    s = torch.asinh(u / df.sqrt())
    slope = torch.tanh(s)
    # log cosh(s + x) − log cosh(s), without cancellation for a small x.
    scale = (1 / (df * slope + df.sqrt())).detach()

    def relative(x: Tensor) -> Tensor:
        near = x.clamp(max=20.0)
        close = torch.log1p(2 * torch.sinh(near / 2).square() + torch.sinh(near) * slope)
        return torch.exp(-df * (close + (x - near)))

    half = df / 2
    # lgamma(half + ½) − lgamma(half) − ½ log(half), whose leading terms by Stirling cancel for a large df.
    ratio = half * torch.log1p(0.5 / half) - 0.5 + stirling_error(half + 0.5) - stirling_error(half)
    log_cosh = torch.logaddexp(s, -s) - _LOG_2
    constant = ratio + 0.5 * df.log() - 0.5 * math.log(2 * math.pi)
    return constant - df * log_cosh + half_line(relative, scale).log()


def log_tail_from_hazard(hazard: Tensor, above: bool) -> Tensor:
    """Log-probability of a tail of a lifetime from its cumulative hazard, −log P(Y > y)."""
    return -hazard if above else log1mexp(hazard)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − exp(−x)) for x > 0, to full relative precision (Mächler, 2012)."""
    near, far = x.clamp(max=_LOG_2), x.clamp(min=_LOG_2)
    return torch.where(x < _LOG_2, torch.log(-torch.expm1(-near)), torch.log1p(-torch.exp(-far)))


class _Bounds(Constraint):
    """Pairs of bounds with lower <= upper, NaN for none, not both NaN, whose upper bound lies in a given support."""

    is_discrete, event_dim = False, 1

    def __init__(self, support: Constraint) -> None:
        self.support = support

    def check(self, value: Tensor) -> Tensor:
        lower, upper = value.unbind(-1)
        ordered = ~(lower > upper) & ~(lower.isnan() & upper.isnan())
        possible = upper.isnan() | self.support.check(upper)
        return ordered & possible & (lower.isnan() | ~upper.isnan() | ~lower.isinf())


def bounds(support: Constraint) -> Constraint:
    """The constraint on pairs of bounds (*batch, 2) for a number with this support."""
    return _Bounds(support)


class Censored(Distribution):
    """A number observed by a lower and an upper bound, NaN for none; equal bounds are an exact observation.

    Censoring is taken to be independent of the number.

    Shapes: latent, the distribution of the number, (*batch,); y (*batch, 2).
    """

    arg_constraints = {}  # noqa: RUF012 - torch asks for it, and types it as one of an instance

    def __init__(self, latent: Distribution) -> None:
        self.latent = latent
        super().__init__(latent.batch_shape, torch.Size([2]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density where the bounds are equal, else the logarithm of the mass between them, (*batch,)."""
        lower, upper = value.unbind(-1)
        exact, left, right = lower == upper, self._is_open(lower), upper.isnan()
        # torch.where takes the gradient of every branch, and 0 · inf is NaN: a branch that does not apply to a row is
        # evaluated where it is finite.
        low, high = self._inside()
        a, b = torch.where(exact | left, low, lower), torch.where(exact | right, high, upper)
        density = self.latent.log_prob(torch.where(exact, lower, low))
        survival, below = log_tail(self.latent, a, True), log_tail(self.latent, b, False)
        ends = right | left | exact
        inner = log_between(self.latent, torch.where(ends, low, lower), torch.where(ends, high, upper))
        return torch.where(exact, density, torch.where(right, survival, torch.where(left, below, inner)))

    def pit_bounds(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest possible probability integral transform of the number, each (*batch,)."""
        lower, upper = value.unbind(-1)
        low, high = self._inside()
        left, right = self._is_open(lower), upper.isnan()
        below = cdf(self.latent, torch.where(left, low, lower))
        until = cdf(self.latent, torch.where(right, high, upper))
        return torch.where(left, 0.0, below), torch.where(right, 1.0, until)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws without censoring, as pairs of equal bounds, (*sample_shape, *batch, 2)."""
        drawn = self.latent.sample(sample_shape)
        return torch.stack([drawn, drawn], -1)

    @property
    def mean(self) -> Tensor:
        """The mean of the number, (*batch,)."""
        return self.latent.mean

    @property
    def variance(self) -> Tensor:
        """The variance of the number, (*batch,)."""
        return self.latent.variance

    def _is_open(self, lower: Tensor) -> Tensor:
        """Whether there is no lower bound: none is given, or it is at or below the support."""
        return ~(lower > getattr(self.latent.support, "lower_bound", -math.inf))

    def _inside(self) -> tuple[Tensor, Tensor]:
        """Two distinct points with density, and with probability on both sides, each (*batch,)."""
        mean = torch.nan_to_num(self.latent.mean.detach(), 1.0, 1e150, -1e150)
        spread = torch.nan_to_num(self.latent.stddev.detach(), 1.0, 1e150, 1.0)
        return mean, mean + spread


def log_between(distribution: Distribution, a: Tensor, b: Tensor) -> Tensor:
    """Logarithm of P(a < Y <= b), a < b, a difference in the tail nearer to the interval, to avoid cancellation."""
    above = (log_tail(distribution, a, True), log_tail(distribution, b, True))
    below = (log_tail(distribution, b, False), log_tail(distribution, a, False))
    upper = above[0] < -_LOG_2
    larger, smaller = torch.where(upper, above[0], below[0]), torch.where(upper, above[1], below[1])
    return larger + log1mexp((larger - smaller).clamp(min=torch.finfo(larger.dtype).tiny))


@register_kl(Censored, Censored)  # type: ignore[untyped-decorator]
def _divergence(p: Censored, q: Censored) -> Tensor:
    """KL(p, q) of the numbers without censoring, (*batch,)."""
    return kl_divergence(p.latent, q.latent)
