"""The mean negative log-likelihood, in nats and in bits."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, log_prob, sums
from mlefw.rows.clustered import cluster_error, cluster_sums


class Nll(Metric):
    """`nll_nats` = Σ w·nll / Σ w, `nll_bits` = nats / ln 2, `nll_se` = standard error of the mean.

    The standard error is √(Σ w (nll − mean)² / (N (N − 1))), N = Σ w; absent for N <= 1. Rows of several observations
    are the clusters of a robust one: √(G / (G − 1) · Σ r_g²) / N over the G rows of positive weight, with
    r_g = Σ w (nll − mean) over the observations of row g (Liang & Zeger, 1986).
    """

    is_averaged: ClassVar = True
    takes_rows: ClassVar = True

    population: Tensor
    totals: Tensor
    num_rows: Tensor
    clusters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("totals", 2)
        self.add_sum("num_rows")
        self.add_sum("clusters", 3)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor, num_rows: int | None = None) -> None:
        """Add the observations of a block, of `num_rows` rows if given."""
        nll = -log_prob(distribution, y)
        self.population = self.population + promote(weight).sum()
        self.totals = self.totals + sums(weight, nll, nll.square())[1:]
        if num_rows is not None:
            weight = promote(weight)
            row_sum = torch.where(weight > 0, weight * nll, 0.0).view(num_rows, -1).sum(1)
            row_weight = weight.reshape(num_rows, -1).sum(1)
            self.num_rows = self.num_rows + (row_weight > 0).sum()
            self.clusters = self.clusters + cluster_sums(row_sum, row_weight)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        mean, square = self.totals / self.population
        figures = {"nll_nats": mean, "nll_bits": mean / math.log(2)}
        count = self.num_rows
        if count > 1:
            figures["nll_se"] = cluster_error(self.clusters, mean, count, self.population)
        elif self.population > 1 and count == 0:
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
