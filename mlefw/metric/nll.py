"""The mean negative log-likelihood, in nats and in bits."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, log_prob, sums


class Nll(Metric):
    """`nll_nats` = Σ w·nll / Σ w, `nll_bits` = nats / ln 2, `nll_se` = standard error of the mean.

    The standard error is √(Σ w (nll − mean)² / (N (N − 1))), N = Σ w; absent for N <= 1.
    """

    is_averaged: ClassVar = True

    population: Tensor
    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("totals", 2)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        nll = -log_prob(distribution, y)
        self.population = self.population + promote(weight).sum()
        self.totals = self.totals + sums(weight, nll, nll.square())[1:]

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        mean, square = self.totals / self.population
        figures = {"nll_nats": mean, "nll_bits": mean / math.log(2)}
        if self.population > 1:
            variance = (square - mean.square()).clamp(min=0)
            figures["nll_se"] = torch.sqrt(variance / (self.population - 1))
        return figures


class Perplexity(Metric):
    """`perplexity` = exp(NLL in nats): for discrete targets only, because the NLL of a density depends on its unit."""

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 2)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        self.totals = self.totals + sums(weight, log_prob(distribution, y))

    def compute(self) -> dict[str, Tensor]:
        """The figure."""
        return {"perplexity": (-self.totals[1] / self.totals[0]).exp()}
