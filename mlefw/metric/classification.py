"""The Brier score and accuracy of class probabilities."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.metric.base import Metric, class_probabilities, confidence_and_hit, sums
from mlefw.precision import promote


class Classification(Metric):
    """`brier`: (p − y)² for a binary target, Σ_k (p_k − 1{y = k})² over classes; `accuracy` of the likeliest class.

    Source: Brier (1950). A binary target is predicted 1 from p = ½ on; of equal classes the first one counts.
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
            self.totals += sums(weight, miss, (logits >= 0) == (y == 1))
            return
        probs = class_probabilities(distribution, y)
        others = probs.scatter(-1, y.unsqueeze(-1), 0.0)
        one = probs.new_ones(probs.shape[-1])
        # What the observed class lacks is what the others have: nothing cancels where the model is sure.
        square = (others @ one).square() + others.square() @ one
        self.totals += sums(weight, square, confidence_and_hit(distribution, y)[1])

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, square, hits = self.totals
        return {"brier": square / population, "accuracy": hits / population}
