"""A distribution within bounds: what is seen where values outside the bounds do not enter the sample at all."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.types import _size

from mlefw.distribution import quantile
from mlefw.distribution.cdf import is_discrete, tail
from mlefw.distribution.censored import log1mexp, log_between, log_tail
from mlefw.distribution.quadrature import half_line_heavy, segment

_RARE = 1e-5
"""Mass from the lower bound on, as a share of that above zero, below which it is summed rather than a complement."""


class Within(Constraint):
    """Numbers between two bounds, both included, of which either may be infinite; of counts whole ones."""

    def __init__(self, lower: float, upper: float, is_discrete: bool) -> None:
        self.is_discrete, self.event_dim = is_discrete, 0
        self._ends = lower, upper
        if lower > -math.inf:
            self.lower_bound = lower
        if upper < math.inf:
            self.upper_bound = upper

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies inside, elementwise."""
        inside = (value >= self._ends[0]) & (value <= self._ends[1])
        return inside & (value == value.round()) if self.is_discrete else inside

    def __repr__(self) -> str:
        """The words that error messages use."""
        ends = [
            f"{word} {end:g}" for word, end in zip(("from", "up to"), self._ends, strict=True) if abs(end) < math.inf
        ]
        return " ".join(["whole numbers" if self.is_discrete else "numbers", *ends])


def within(support: Any, lower: float | None, upper: float | None) -> Within:
    """The support of a number with this support, between bounds."""
    least, most = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    low = lower if lower is not None else least if isinstance(least, int | float) else -math.inf
    high = upper if upper is not None else most if isinstance(most, int | float) else math.inf
    return Within(low, high, bool(support.is_discrete))


class Truncated(Distribution):
    """A distribution given that the value lies between two bounds, both included, of which one may be missing.

    The mass between the bounds is computed in logarithms: of a density from the nearer tail, of counts as a sum, or
    as the complement of the sum of the masses below, whichever keeps the digits.

    Shapes: whole, the distribution without bounds, (*batch,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, whole: Distribution, lower: float | None, upper: float | None) -> None:
        self.whole, self.lower, self.upper = whole, lower, upper
        super().__init__(whole.batch_shape, validate_args=False)

    @property
    def support(self) -> Constraint:
        """The values between the bounds."""
        return within(self.whole.support, self.lower, self.upper)

    @cached_property
    def log_mass(self) -> Tensor:
        """The logarithm of the probability of the bounds under the whole distribution, (*batch,)."""
        if is_discrete(self.whole):
            return self._window.logsumexp(0) if self.upper is not None else self._log_mass_from_lower()
        like = self.whole.mean
        low, high = (None if bound is None else torch.full_like(like, bound) for bound in (self.lower, self.upper))
        if low is not None and high is not None:
            return log_between(self.whole, low, high)
        return log_tail(self.whole, low, True) if low is not None else log_tail(self.whole, _some(high), False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density or log-mass, (*batch,)."""
        low, high = (-math.inf if self.lower is None else self.lower), (math.inf if self.upper is None else self.upper)
        return torch.where((value < low) | (value > high), -math.inf, self.whole.log_prob(value) - self.log_mass)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return self._moments[0]

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        return self._moments[1]

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch), by inversion."""
        with torch.no_grad():
            shape = torch.Size([*sample_shape, *self.batch_shape])
            level = torch.rand(shape, dtype=torch.float64, device=self.whole.mean.device).clamp(min=2.0**-54)
            return quantile.quantile(self, level)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (*batch,)."""
        with torch.no_grad():
            return self._moments_of_counts() if is_discrete(self.whole) else self._moments_of_density()

    def _moments_of_counts(self) -> tuple[Tensor, Tensor]:
        first, second = self.whole.mean, self.whole.variance + self.whole.mean.square()
        k, log_masses = self._counts, self._window
        share = log_masses.softmax(0)
        summed = (share * k).sum(0), (share * k.square()).sum(0)
        if self.upper is None:
            below = torch.arange(1, self._least, dtype=first.dtype, device=first.device)
            below = below.view(-1, *(1 for _ in first.shape))
            left = _masses(self.whole, below).exp()
            mass = self.log_mass.exp()
            whole = (first - (below * left).sum(0)) / mass, (second - (below.square() * left).sum(0)) / mass
            rare = self._is_rare
            summed = torch.where(rare, summed[0], whole[0]), torch.where(rare, summed[1], whole[1])
        return summed[0], (summed[1] - summed[0].square()).clamp(min=torch.finfo(first.dtype).tiny)

    def _moments_of_density(self) -> tuple[Tensor, Tensor]:
        """By integrals of the tails outwards from a bound."""
        support: Any = self.support
        ends = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
        start, sign, stop = (ends[0], 1.0, ends[1]) if self.lower is not None else (ends[1], -1.0, ends[0])
        at = torch.full_like(self.whole.mean, _some(start))
        length = None if stop is None else (stop - at).abs()
        middle = (sign * (self.whole.mean - at)).clamp(min=0.0)
        middle = middle if length is None else torch.minimum(middle, length)
        # Far in a tail the density decays over the reciprocal of the hazard.
        hazard = (self.log_mass - self.whole.log_prob(at)).exp()
        scale = torch.where(middle > 0, self.whole.stddev, torch.minimum(hazard, self.whole.stddev))

        def beyond(t: Tensor) -> Tensor:
            return tail(self, at + sign * t, sign > 0)

        def integral(function: Callable[[Tensor], Tensor]) -> Tensor:
            inner = segment(function, middle, 0 * middle)
            if length is not None:
                return inner + segment(function, length - middle, middle)
            return inner + half_line_heavy(lambda t: function(middle + t), scale)

        first, second = integral(beyond), 2 * integral(lambda t: t * beyond(t))
        return at + sign * first, second - first.square()

    @property
    def _least(self) -> int:
        """The least count that is possible."""
        return max(0, int(self.lower or 0))

    @cached_property
    def _counts(self) -> Tensor:
        """The counts over which masses are summed, (m, 1, …, 1): all, or without an upper bound those next to it."""
        more = 40 + 8 * math.isqrt(self._least) if self.upper is None else int(self.upper) - self._least
        counts = torch.arange(self._least, self._least + more + 1, dtype=torch.float64, device=self.whole.mean.device)
        return counts.view(-1, *(1 for _ in self.batch_shape))

    @cached_property
    def _window(self) -> Tensor:
        """The log-masses of `_counts` under the whole distribution, (m, *batch)."""
        return _masses(self.whole, self._counts)

    @cached_property
    def _below(self) -> Tensor:
        """The logarithm of P(Y < lower | Y > 0), (*batch,), at most just below 0."""
        counts = self._counts
        below = torch.arange(1, self._least, dtype=counts.dtype, device=counts.device)
        masses = _masses(self.whole, below.view(-1, *(1 for _ in self.batch_shape)))
        return (masses.logsumexp(0) - self._log_positive).clamp(max=math.log1p(-0.1 * _RARE))

    @property
    def _log_positive(self) -> Tensor:
        return log1mexp(-self.whole.log_prob(torch.zeros_like(self.whole.mean)))

    @property
    def _is_rare(self) -> Tensor:
        if self._least <= 1:
            return torch.zeros(self.batch_shape, dtype=torch.bool, device=self.whole.mean.device)
        return log1mexp(-self._below) < math.log(_RARE)

    def _log_mass_from_lower(self) -> Tensor:
        if self._least == 0:
            return torch.zeros_like(self.whole.mean)
        if self._least == 1:
            return self._log_positive
        complement = self._log_positive + log1mexp(-self._below)
        # Beyond the window the masses fall nearly by a constant ratio.
        before, last = self._window[-2], self._window[-1]
        goes_on = torch.isfinite(last)
        fall = torch.where(goes_on, last, -1.0) - torch.where(goes_on, before, 0.0)
        rest = torch.where(goes_on, last + fall - log1mexp(-fall.clamp(max=-1e-9)), -math.inf)
        summed = torch.cat([self._window, rest.unsqueeze(0)]).logsumexp(0)
        return torch.where(self._is_rare, summed, complement)


def _masses(whole: Distribution, k: Tensor) -> Tensor:
    """Log-masses of counts k (m, 1, …, 1), (m, *batch), minus infinity where a count is not possible."""
    k = k.expand(len(k), *whole.batch_shape)
    inside = whole.support.check(k)  # type: ignore[union-attr]
    return torch.where(inside, whole.log_prob(torch.where(inside, k, torch.zeros_like(k))), -math.inf)


def _some(bound: Any) -> Any:
    assert bound is not None
    return bound


@tail.register
def _(distribution: Truncated, y: Tensor, above: bool) -> Tensor:
    whole, lower, upper = distribution.whole, distribution.lower, distribution.upper
    support: Any = distribution.support
    before = y < getattr(support, "lower_bound", -math.inf)
    after = y >= getattr(support, "upper_bound", math.inf)
    if is_discrete(whole):
        inside = _tail_of_counts(distribution, y, above)
    else:
        y = y.clamp(getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf))
        end = upper if above else lower
        if end is None:
            log = log_tail(whole, y, above)
        else:
            bound = torch.full_like(y, end)
            log = log_between(whole, *((y, bound) if above else (bound, y)))
        inside = (log - distribution.log_mass).exp()
    inside = torch.where(before, float(above), torch.where(after, float(not above), inside))
    return inside.clamp(0.0, 1.0)


def _tail_of_counts(distribution: Truncated, y: Tensor, above: bool) -> Tensor:
    whole, upper = distribution.whole, distribution.upper
    mass = distribution.log_mass.exp()
    if upper is not None:
        k, masses = distribution._counts, (distribution._window - distribution.log_mass).exp()
        # Draws of several rows at once have more dimensions than the batch.
        more = [1] * (y.ndim - masses.ndim + 1)
        k, masses = (one.view(len(one), *more, *one.shape[1:]) for one in (k, masses))
        return torch.where((k > y) if above else (k <= y), masses, 0.0).sum(0)
    over = tail(whole, y, True) / mass
    if above:
        return over
    least = torch.full_like(whole.mean, distribution._least - 1.0)
    until = (tail(whole, y, False) - tail(whole, least, False)) / mass
    return torch.where(tail(whole, least, True) < 0.5, 1 - over, until)


@quantile.quantile.register
def _(distribution: Truncated, level: quantile.Level) -> Tensor:
    return quantile.bisect(distribution, level, *quantile.cantelli(distribution, level))
