"""Whether counts vary as much, and are as often zero, as predicted."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric, sums
from mlefw.precision import promote


class Dispersion(Metric):
    """`dispersion`, and the share of zeros: `zeros_observed`, and `zeros_expected` by the predictions.

    The dispersion is Pearson's Σ w (y − mean)² / variance / Σ w. It divides by n, not n − p: a metric does not know
    the number of parameters, and on rows that were not trained on none were fitted. One is right; above it the counts
    vary more than predicted.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 4)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        pearson = (y - distribution.mean).square() / distribution.variance
        none = promote(distribution.log_prob(torch.zeros_like(y))).exp()
        self.totals = self.totals + sums(weight, pearson, y == 0, none)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        pearson, observed, expected = self.totals[1:] / self.totals[0]
        return {"dispersion": pearson, "zeros_observed": observed, "zeros_expected": expected}
