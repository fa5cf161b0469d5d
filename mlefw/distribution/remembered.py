"""Quantities of a block of rows that several figures need, cached on the distribution."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mlefw.distribution.cdf import cdf, is_discrete
from mlefw.distribution.precision import promote

T = TypeVar("T")


def remembered(function: Callable[[Distribution, Tensor], T]) -> Callable[[Distribution, Tensor], T]:
    """`function`, with its latest result cached on the distribution, so that the metrics of a block share it."""

    def cached(distribution: Distribution, y: Tensor) -> T:
        memory: Any = distribution.__dict__.setdefault("_remembered", {})
        if function not in memory or memory[function][0] is not y:
            memory[function] = (y, function(distribution, y))
        return memory[function][1]

    cached.__doc__ = function.__doc__
    return cached


@remembered
def class_probabilities(distribution: Distribution, y: Tensor) -> Tensor:
    """P(Y = k | x), (n, num_classes).

    Raises:
        TypeError: the distribution has no classes.
    """
    if not isinstance(distribution, Categorical):
        raise TypeError(f"no class probabilities in {type(distribution).__name__}")
    # torch has normalised the logits; its softmax is thirty times slower than exp on the CPU.
    return promote(distribution.logits).exp()


@remembered
def log_prob(distribution: Distribution, y: Tensor) -> Tensor:
    """Log-density or log-mass of each row, (n,), in the widest float.

    For classes it is computed from the probabilities, which other metrics need as well; where the observed class has a
    large probability, from the sum of the others, to keep full relative precision near one.
    """
    if not isinstance(distribution, Categorical):
        return promote(distribution.log_prob(y))
    probs, label = class_probabilities(distribution, y), y.long().unsqueeze(-1)
    others = probs.scatter(-1, label, 0.0) @ probs.new_ones(probs.shape[-1])
    chosen = promote(distribution.logits).gather(-1, label).squeeze(-1)
    return torch.where(others < 0.5, torch.log1p(-others), chosen)


@remembered
def pit_bounds(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """P(Y < y) and P(Y <= y), each (n,), for y in the support; equal where the distribution is continuous."""
    upper = promote(cdf(distribution, y))
    if (atom := getattr(distribution, "atom", None)) is not None:
        return torch.where(y <= atom, torch.zeros_like(upper), upper), upper
    if not is_discrete(distribution):
        return upper, upper
    return (upper - log_prob(distribution, y).exp()).clamp(min=0), upper
