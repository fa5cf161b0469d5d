"""P(Y <= y) and P(Y > y) of univariate distributions, each to full relative precision in its own tail."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    TransformedDistribution,
)

from mlefw.distribution.incomplete import betainc, gammainc, gammaincc


def is_discrete(distribution: Distribution) -> bool:
    """Whether the distribution has a mass rather than a density."""
    return bool(distribution.support.is_discrete)  # type: ignore[union-attr]


def cdf(distribution: Distribution, y: Tensor) -> Tensor:
    """P(Y <= y), broadcast over the batch shape, (*batch,).

    Raises:
        NotImplementedError: neither torch nor this module has a cdf of the distribution.
    """
    return tail(distribution, y, False)


def survival(distribution: Distribution, y: Tensor) -> Tensor:
    """P(Y > y), broadcast over the batch shape, (*batch,)."""
    return tail(distribution, y, True)


@singledispatch
def tail(distribution: Distribution, y: Tensor, above: bool) -> Tensor:
    """P(Y > y) if `above`, else P(Y <= y), (*batch,); by default from the distribution's own `cdf`."""
    below = distribution.cdf(y)
    return 1 - below if above else below


@tail.register
def _(distribution: Normal, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    return 0.5 * torch.erfc(u * (math.sqrt(0.5) if above else -math.sqrt(0.5)))


@tail.register
def _(distribution: Laplace, y: Tensor, above: bool) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    outer = 0.5 * torch.exp(-u.abs())
    return torch.where((u < 0) != above, outer, 1 - outer)


@tail.register
def _(distribution: StudentT, y: Tensor, above: bool) -> Tensor:
    u, df = (y - distribution.loc) / distribution.scale, distribution.df
    square = u * u / df
    outer = 0.5 * betainc(df / 2, torch.full_like(df, 0.5), 1 / (1 + square), 1 / (1 + 1 / square))
    return torch.where((u < 0) != above, outer, 1 - outer)


@tail.register
def _(distribution: Exponential, y: Tensor, above: bool) -> Tensor:
    exponent = -(distribution.rate * y).clamp(min=0)
    return torch.exp(exponent) if above else -torch.expm1(exponent)


@tail.register
def _(distribution: Gamma, y: Tensor, above: bool) -> Tensor:
    x = (distribution.rate * y).clamp(min=0)
    return (gammaincc if above else gammainc)(distribution.concentration, x)


@tail.register
def _(distribution: Beta, y: Tensor, above: bool) -> Tensor:
    a, b, x = distribution.concentration1, distribution.concentration0, y.clamp(0, 1)
    return betainc(b, a, 1 - x, x) if above else betainc(a, b, x, 1 - x)


@tail.register
def _(distribution: Poisson, y: Tensor, above: bool) -> Tensor:
    count = y.floor().clamp(min=0) + 1
    return _from_zero(y, (gammainc if above else gammaincc)(count, distribution.rate), above)


@tail.register
def _(distribution: NegativeBinomial, y: Tensor, above: bool) -> Tensor:
    count = y.floor().clamp(min=0) + 1
    return _from_zero(y, _failures(distribution.total_count, count, distribution.logits, above), above)


@tail.register
def _(distribution: Binomial, y: Tensor, above: bool) -> Tensor:
    count = y.floor().clamp(min=0) + 1
    rest = distribution.total_count - count + 1
    inside = _failures(rest.clamp(min=1), count, distribution.logits, above)
    return _from_zero(y, torch.where(rest < 1, torch.full_like(inside, 0.0 if above else 1.0), inside), above)


def _failures(size: Tensor, count: Tensor, logits: Tensor, above: bool) -> Tensor:
    """P(N >= count) if `above`, else P(N < count), for the successes N before `size` failures."""
    fail, success = torch.sigmoid(-logits), torch.sigmoid(logits)
    return betainc(count, size, success, fail) if above else betainc(size, count, fail, success)


@tail.register
def _(distribution: Geometric, y: Tensor, above: bool) -> Tensor:
    exponent = (y.floor().clamp(min=0) + 1) * torch.nn.functional.logsigmoid(-distribution.logits)
    return _from_zero(y, torch.exp(exponent) if above else -torch.expm1(exponent), above)


@tail.register
def _(distribution: Bernoulli, y: Tensor, above: bool) -> Tensor:
    inside = torch.sigmoid(distribution.logits if above else -distribution.logits)
    return _from_zero(y, torch.where(y >= 1, torch.full_like(inside, 0.0 if above else 1.0), inside), above)


@tail.register
def _(distribution: Categorical, y: Tensor, above: bool) -> Tensor:
    cumulated = distribution.probs.cumsum(-1)
    index = y.floor().long().clamp(0, cumulated.shape[-1] - 1)
    below = cumulated.gather(-1, index.expand(cumulated.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return _from_zero(y, (1 - below).clamp(min=0) if above else below, above)


def _from_zero(y: Tensor, inside: Tensor, above: bool) -> Tensor:
    """The tail of a distribution on y >= 0 from its value for y >= 0."""
    return torch.where(y < 0, torch.full_like(inside, 1.0 if above else 0.0), inside)


@tail.register
def _(distribution: MixtureSameFamily, y: Tensor, above: bool) -> Tensor:
    each = tail(distribution.component_distribution, y.unsqueeze(-1), above)
    return (distribution.mixture_distribution.probs * each).sum(-1)


@tail.register
def _(distribution: TransformedDistribution, y: Tensor, above: bool) -> Tensor:
    if not all(transform.bijective for transform in distribution.transforms):
        below = distribution.cdf(y)
        return 1 - below if above else below
    rising = torch.ones((), dtype=torch.float64, device=y.device)
    for transform in reversed(distribution.transforms):
        rising = rising * transform.sign
        y = transform.inv(y)
    base = distribution.base_dist
    return torch.where(rising > 0, tail(base, y, above), tail(base, y, not above))


@tail.register(Independent)
def _(distribution: Independent[Distribution], y: Tensor, above: bool) -> Tensor:
    if distribution.event_shape.numel() != 1:
        raise NotImplementedError(f"no cdf in {distribution.event_shape.numel()} dimensions")
    inside = tail(distribution.base_dist, y, above)
    return inside.reshape(inside.shape[: inside.ndim - distribution.reinterpreted_batch_ndims])
