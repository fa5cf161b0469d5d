"""The Brier score and accuracy of class probabilities."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.metric.base import Metric


class Classification(Metric):
    """`brier`: (p − y)² for a binary target, Σ_k (p_k − 1{y = k})² over classes; `accuracy` of the likeliest class."""

    population: Tensor
    square: Tensor
    hits: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("population", "square", "hits"):
            self.add_sum(name)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        probs: Tensor = distribution.probs  # type: ignore[attr-defined]
        if isinstance(distribution, Bernoulli):
            square, hit = (probs - y).square(), (probs >= 0.5) == (y == 1)
        else:
            observed = torch.nn.functional.one_hot(y, probs.shape[-1])
            square, hit = (probs - observed).square().sum(-1), probs.argmax(-1) == y
        self.population += weight.sum()
        self.square += (weight * square).sum()
        self.hits += (weight * hit).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        return {"brier": self.square / self.population, "accuracy": self.hits / self.population}
