"""Mixtures of many components with equal weights in every row, as quadrature over eta gives them."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, is_discrete, survival

_STEPS = 100
_ROUNDING = 1e-12
"""Error of a probability, relative to the smaller tail, at which a quantile is found."""


class NodeMixture(MixtureSameFamily):
    """A continuous mixture whose quantiles, (*batch,), are found by Newton's method.

    For many components this is faster than the bisection of `MixtureSameFamily`, which needs all component quantiles.
    """


def mixture(log_weight: Tensor, component: Distribution) -> MixtureSameFamily:
    """The mixture, of batch shape (n,), of components of batch shape (n, m) with log weights (m,)."""
    mixing = Categorical(logits=log_weight.expand(component.batch_shape), validate_args=False)
    kind = MixtureSameFamily if is_discrete(component) else NodeMixture
    return kind(mixing, component, validate_args=False)


@quantile.quantile.register
def _(distribution: NodeMixture, level: quantile.Level) -> Tensor:
    """Newton's method within a bracket that starts at Cantelli's bounds."""
    mean, sd = distribution.mean, distribution.stddev
    p = level.expand_as(mean) if isinstance(level, Tensor) else torch.full_like(mean, level)
    low, high = mean - sd * ((1 - p) / p).sqrt(), mean + sd * (p / (1 - p)).sqrt()
    lowest = getattr(distribution.support, "lower_bound", None)
    low = low if lowest is None else low.clamp(min=lowest)
    return newton(distribution, p, low, high, (mean + sd * torch.special.ndtri(p)).clamp(low, high))


def newton(distribution: Distribution, p: Tensor, low: Tensor, high: Tensor, start: Tensor) -> Tensor:
    """The quantiles at p by Newton's method between bounds, which it narrows; all tensors (*batch,).

    A step outside them is replaced by bisection.

    Args:
        distribution: continuous, with a cdf and a density.
        p: probabilities.
        low: below or at the quantile.
        high: above or at it.
        start: between the two.
    """
    q = start
    for _ in range(_STEPS):
        # Compare in the smaller tail, which keeps its digits.
        tail = torch.where(p < 0.5, cdf(distribution, q) - p, 1 - p - survival(distribution, q))
        found = tail.abs() <= _ROUNDING * torch.minimum(p, 1 - p)
        if bool(found.all()):
            break
        low, high = torch.where(tail < 0, q, low), torch.where(tail < 0, high, q)
        new = q - tail / distribution.log_prob(q).exp()
        new = torch.where((new > low) & (new < high), new, (low + high) / 2)
        if bool((found | (new == q)).all()):
            # No number lies between: this is as near as rounding lets it come.
            break
        q = torch.where(found, q, new)
    return q
