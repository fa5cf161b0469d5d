"""The Brier score and accuracy of class probabilities."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, class_probabilities, confidence_and_hit, log_prob, sums


class Classification(Metric):
    """`brier`: (p − y)² for a binary target, Σ_k (p_k − 1{y = k})² over classes; `accuracy` of the most likely class.

    A binary target is predicted as 1 from p = ½ on; among classes of equal probability the first is predicted.

    Source: Brier (1950).
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 3)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        if isinstance(distribution, Bernoulli):
            logits = promote(distribution.logits)
            miss = torch.sigmoid((1 - 2 * y) * logits).square()
            self.totals = self.totals + sums(weight, miss, (logits >= 0) == (y == 1))
            return
        probs, log_chosen = class_probabilities(distribution, y), log_prob(distribution, y)
        # expm1 of the log-mass, because 1 − p would cancel for p near one.
        others = (probs.square() @ probs.new_ones(probs.shape[-1]) - (2 * log_chosen).exp()).clamp(min=0)
        square = torch.expm1(log_chosen).square() + others
        self.totals = self.totals + sums(weight, square, confidence_and_hit(distribution, y)[1])

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, square, hits = self.totals
        return {"brier": square / population, "accuracy": hits / population}
