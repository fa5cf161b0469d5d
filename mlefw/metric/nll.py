"""The mean negative log-likelihood, in nats and in bits."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric


class Nll(Metric):
    """`nll_nats` (mean over Σ w), `nll_bits` = nats / ln 2, `nll_se` = standard error of the mean."""

    population: Tensor
    total: Tensor
    square: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("population", "total", "square"):
            self.add_sum(name)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        nll = -distribution.log_prob(y)
        self.population += weight.sum()
        self.total += (weight * nll).sum()
        self.square += (weight * nll.square()).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        mean = self.total / self.population
        figures = {"nll_nats": mean, "nll_bits": mean / math.log(2)}
        if self.population > 1:
            variance = (self.square / self.population - mean.square()).clamp(min=0)
            figures["nll_se"] = torch.sqrt(variance / (self.population - 1))
        return figures


class Perplexity(Metric):
    """`perplexity` = exp(NLL in nats): only for discrete targets, since that of a density has a unit."""

    population: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("total")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        self.population += weight.sum()
        self.total -= (weight * distribution.log_prob(y)).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figure."""
        return {"perplexity": (self.total / self.population).exp()}
