"""Cdf, quantiles, intervals and PIT of any univariate distribution, on its device, also where torch has none."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Poisson


@singledispatch
def cdf(distribution: Distribution, y: Tensor) -> Tensor:
    """P(Y <= y), broadcast over the batch shape."""
    return distribution.cdf(y)


@cdf.register
def _(distribution: Poisson, y: Tensor) -> Tensor:
    count = y.floor()
    below = torch.special.gammaincc(count.clamp(min=0) + 1, distribution.rate)
    return torch.where(count < 0, torch.zeros_like(below), below)


@cdf.register
def _(distribution: Bernoulli, y: Tensor) -> Tensor:
    below = torch.where(y >= 1, torch.ones_like(distribution.probs), torch.sigmoid(-distribution.logits))
    return torch.where(y < 0, torch.zeros_like(below), below)


@cdf.register
def _(distribution: Categorical, y: Tensor) -> Tensor:
    cumulated = distribution.probs.cumsum(-1)
    index = y.floor().long().clamp(0, cumulated.shape[-1] - 1)
    below = cumulated.gather(-1, index.expand(cumulated.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return torch.where(y < 0, torch.zeros_like(below), below)


def is_discrete(distribution: Distribution) -> bool:
    """Whether the distribution has a mass rather than a density."""
    return bool(distribution.support.is_discrete)  # type: ignore[union-attr]


def quantile(distribution: Distribution, level: float) -> Tensor:
    """The smallest y with P(Y <= y) >= level, one for each batch element, for a level in (0, 1).

    From `icdf` where the distribution has one, else by bisection of its cdf.
    """
    if isinstance(distribution, Categorical):
        return (distribution.probs.cumsum(-1) < level).sum(-1).clamp(max=distribution.probs.shape[-1] - 1)
    if not is_discrete(distribution):
        try:
            return distribution.icdf(torch.full_like(distribution.mean, level))
        except NotImplementedError:
            pass
    return _bisect(distribution, level)


def _bisect(distribution: Distribution, level: float) -> Tensor:
    """Bisection from Cantelli's bracket: no quantile is further from the mean, whatever the distribution."""
    low = distribution.mean - distribution.stddev * math.sqrt((1 - level) / level)
    high = distribution.mean + distribution.stddev * math.sqrt(level / (1 - level))
    lowest = getattr(distribution.support, "lower_bound", None)
    if lowest is not None and not is_discrete(distribution):
        low = low.clamp(min=lowest)
    num_steps = 100
    discrete = is_discrete(distribution)
    if discrete:
        low, high = low.floor() - 1, high.ceil()
        num_steps = math.ceil(math.log2(float(torch.nan_to_num(high - low).max()) + 1)) if low.numel() else 0
    for _ in range(num_steps):
        middle = ((low + high) / 2).floor() if discrete else (low + high) / 2
        reached = cdf(distribution, middle) >= level
        # Two neighbouring integers have the lower one as their middle: the bracket then stays as it is.
        high = torch.where(reached & (middle > low), middle, high)
        low = torch.where(reached, low, middle)
    return high


def interval(distribution: Distribution, level: float) -> tuple[Tensor, Tensor]:
    """The central interval: quantiles at (1 − level) / 2 and (1 + level) / 2."""
    return quantile(distribution, (1 - level) / 2), quantile(distribution, (1 + level) / 2)


def pit_bounds(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """P(Y < y) and P(Y <= y): equal where the distribution is continuous; the PIT lies between them."""
    upper = cdf(distribution, y)
    return (cdf(distribution, y - 1), upper) if is_discrete(distribution) else (upper, upper)
