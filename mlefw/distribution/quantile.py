"""Quantiles, intervals, draws and probability integral transforms (PIT) of any univariate distribution."""

import math
from functools import lru_cache, singledispatch

import numpy as np
import scipy.special
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Gamma,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    Poisson,
    StudentT,
    TransformedDistribution,
)

from mlefw.distribution.cdf import cdf, is_discrete, survival
from mlefw.distribution.precision import promote
from mlefw.distribution.special import betaincinv, gammaincinv, t_quantile

Level = float | Tensor
"""A probability in (0, 1): a number for all rows, or a tensor with one for each row."""

_TABLE = 2048
"""Length of the table of Poisson quantiles, which serves rates up to about that number."""
HALVINGS = 100
"""Steps of a search for the quantile of a density."""
_PARTS = 16
"""Parts into which a search off the CPU divides the bracket of a count in a step."""
STEPS = 14
"""Steps of such a search after which a bracket of up to 2^53 counts is one count."""


@singledispatch
def quantile(distribution: Distribution, level: Level) -> Tensor:
    """The smallest y with P(Y <= y) >= level, (*batch,).

    By default from the distribution's `icdf`, or by bisection of its cdf where it has none.
    """
    if not is_discrete(distribution):
        try:
            return distribution.icdf(_like(distribution.mean, level))
        except NotImplementedError:
            pass
    return bisect(distribution, level, *cantelli(distribution, level))


@quantile.register
def _(distribution: Normal, level: Level) -> Tensor:
    u = torch.special.ndtri(level) if isinstance(level, Tensor) else float(scipy.special.ndtri(level))
    return distribution.loc + distribution.scale * u


@quantile.register
def _(distribution: Laplace, level: Level) -> Tensor:
    if isinstance(level, Tensor):
        u = torch.where(level < 0.5, (2 * level).log(), -(2 * (1 - level)).log())
        return distribution.loc + distribution.scale * u
    return distribution.loc + distribution.scale * (math.log(2 * level) if level < 0.5 else -math.log(2 * (1 - level)))


@quantile.register
def _(distribution: StudentT, level: Level) -> Tensor:
    df = distribution.df
    return distribution.loc + distribution.scale * t_quantile(df, _like(df, level))


@quantile.register
def _(distribution: Gamma, level: Level) -> Tensor:
    a = distribution.concentration
    return gammaincinv(a, _like(a, level)) / distribution.rate


@quantile.register
def _(distribution: Beta, level: Level) -> Tensor:
    a, b = distribution.concentration1, distribution.concentration0
    return betaincinv(a, b, _like(a, level))


@quantile.register
def _(distribution: Bernoulli, level: Level) -> Tensor:
    return (cdf(distribution, torch.zeros_like(distribution.logits)) < level).to(distribution.logits.dtype)


@quantile.register
def _(distribution: Poisson, level: Level) -> Tensor:
    rate = distribution.rate
    if isinstance(level, Tensor):
        return bisect(distribution, level, *cantelli(distribution, level))
    thresholds = _poisson_thresholds(level).to(rate.device)
    q = torch.searchsorted(thresholds, rate.double().contiguous()).to(rate.dtype)
    large = rate > thresholds[-1]
    if rate.device.type != "cpu":
        # Which rates are large is not asked of the device: it would have to wait for all that it has been given.
        rest = Poisson(torch.where(large, rate, thresholds[-1]), validate_args=False)
        return torch.where(large, section(rest, level, *near_poisson(rest.rate, level)), q)
    if bool(large.any()):
        rest = Poisson(rate[large], validate_args=False)
        q[large] = bisect(rest, level, *cantelli(rest, level))
    return q


@lru_cache(maxsize=32)
def _poisson_thresholds(level: float) -> Tensor:
    """The largest Poisson rate at which P(Y <= k) >= level, for k = 0, …, 2047, (2048,)."""
    return torch.as_tensor(scipy.special.gammainccinv(np.arange(_TABLE) + 1.0, level))


def near_poisson(rate: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Bounds on the quantile of a Poisson distribution with a rate above some hundred, each (*batch,).

    The expansion to its second term (Cornish & Fisher, 1938) is off by less than 1, for levels from 1e-13 to 1 − 1e-13.
    """
    u = float(scipy.special.ndtri(level))
    middle = (rate + u * rate.sqrt() + (u * u - 1) / 6).floor()
    return middle - _PARTS // 2, middle + _PARTS // 2


@quantile.register
def _(distribution: Categorical, level: Level) -> Tensor:
    cumulated = distribution.probs.cumsum(-1)
    reached = level.unsqueeze(-1) if isinstance(level, Tensor) else level
    return (cumulated < reached).sum(-1).clamp(max=cumulated.shape[-1] - 1)


@quantile.register
def _(distribution: MixtureSameFamily, level: Level) -> Tensor:
    per_component = level.unsqueeze(-1) if isinstance(level, Tensor) else level
    each = quantile(distribution.component_distribution, per_component)
    margin = 1e-9 * (each.amax(-1) - each.amin(-1)) + (1.0 if is_discrete(distribution) else 0.0)
    return bisect(distribution, level, each.amin(-1) - margin, each.amax(-1) + margin)


@quantile.register
def _(distribution: TransformedDistribution, level: Level) -> Tensor:
    if not all(transform.bijective for transform in distribution.transforms):
        return distribution.icdf(_like(distribution.mean, level))
    rising = torch.ones((), dtype=torch.float64)
    for transform in distribution.transforms:
        rising = rising * torch.as_tensor(transform.sign, dtype=torch.float64)
    flip = rising.to(distribution.base_dist.mean.device) < 0
    y = _like(distribution.base_dist.mean, level)
    y = quantile(distribution.base_dist, torch.where(flip, 1 - y, y))
    for transform in distribution.transforms:
        y = transform(y)
    return y


@quantile.register(Independent)
def _(distribution: Independent[Distribution], level: Level) -> Tensor:
    return quantile(distribution.base_dist, level)


def _like(parameter: Tensor, level: Level) -> Tensor:
    return level.expand_as(parameter) if isinstance(level, Tensor) else torch.full_like(promote(parameter), level)


def cantelli(distribution: Distribution, level: Level) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds on the quantile, each (*batch,), from mean and variance by Cantelli's inequality."""
    p = level if isinstance(level, Tensor) else _like(distribution.mean, level)
    low = distribution.mean - distribution.stddev * ((1 - p) / p).sqrt()
    high = distribution.mean + distribution.stddev * (p / (1 - p)).sqrt()
    if is_discrete(distribution):
        return low.floor() - 1, high.ceil()
    lowest = getattr(distribution.support, "lower_bound", None)
    return (low if lowest is None else low.clamp(min=lowest)), high


def bisect(distribution: Distribution, level: Level, low: Tensor, high: Tensor) -> Tensor:
    """The quantile between bounds that are known, (*batch,)."""
    num_steps, discrete = HALVINGS, is_discrete(distribution)
    if discrete and low.device.type != "cpu":
        return section(distribution, level, low, high, STEPS)
    if discrete:
        num_steps = math.ceil(math.log2(float(torch.nan_to_num(high - low).max()) + 1)) if low.numel() else 0
    for _ in range(num_steps):
        middle = ((low + high) / 2).floor() if discrete else (low + high) / 2
        reached = cdf(distribution, middle) >= level
        # The middle of two neighbouring integers is the lower one, which must not become `high`.
        high = torch.where(reached & (middle > low), middle, high)
        low = torch.where(reached, low, middle)
    return high


def section(distribution: Distribution, level: Level, low: Tensor, high: Tensor, num_steps: int = 1) -> Tensor:
    """The quantile of a count in (low, high], (*batch,), by a fixed number of steps, which asks no values of a device.

    A step compares the distribution function between `_PARTS` parts of the bracket: for a device that is as soon
    done as one comparison, where the number of kernels is what takes time.
    """
    parts = torch.arange(1, _PARTS, dtype=low.dtype, device=low.device).view(-1, *(1 for _ in low.shape))
    for _ in range(num_steps):
        # Whole numbers, so that no rounding moves a point out of the bracket.
        points = low + ((high - low) / _PARTS * parts).floor()
        reached = (cdf(distribution, points) >= level) & (points > low)
        first = torch.where(reached, points, high).amin(0)
        low, high = torch.where(reached, low, points).amax(0), first
    return high


@singledispatch
def interval(distribution: Distribution, level: float) -> tuple[Tensor, Tensor]:
    """The central interval: the quantiles at (1 − level) / 2 and (1 + level) / 2, each (*batch,)."""
    return quantile(distribution, (1 - level) / 2), quantile(distribution, (1 + level) / 2)


def median(distribution: Distribution) -> Tensor:
    """The median, (*batch,)."""
    return quantile(distribution, 0.5)


def sample(distribution: Distribution, generator: torch.Generator | None = None) -> Tensor:
    """One draw for each batch element, (*batch,), by inversion, which takes a generator on every device."""
    shape, device = distribution.batch_shape, distribution.mean.device
    level = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
    return quantile(distribution, level.clamp(min=2.0**-54))


def pit_bounds(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """P(Y < y) and P(Y <= y), between which the PIT lies, each (*batch,); equal for a continuous distribution.

    A continuous distribution with a probability at the lower end of its support names that value as its `atom`.
    """
    upper = cdf(distribution, y)
    if (atom := getattr(distribution, "atom", None)) is not None:
        return torch.where(y <= atom, torch.zeros_like(upper), upper), upper
    return (cdf(distribution, y - 1), upper) if is_discrete(distribution) else (upper, upper)


def normal_score(distribution: Distribution, y: Tensor) -> Tensor:
    """Φ⁻¹ of the PIT, (*batch,), for a continuous distribution: standard normal where the distribution is true."""
    if isinstance(distribution, Normal):
        return (y - distribution.loc) / distribution.scale
    below, above = cdf(distribution, y), survival(distribution, y)
    return torch.where(below < above, torch.special.ndtri(below), -torch.special.ndtri(above))
