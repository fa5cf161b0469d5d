"""The pinball loss of predicted quantiles, in the unit of y."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric, sums


class Pinball(Metric):
    """`pinball`: mean of (y − q) (level − 1{y < q}), q being the predicted quantile at the level of the head.

    `below`: the share of rows at or below the predicted quantile, which is the level if predictions are calibrated.

    Fits of one level are ranked by it (Gneiting & Raftery, 2007); the losses of different levels are not comparable.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 3)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block.

        Raises:
            TypeError: the distribution has no level.
        """
        level, quantile = getattr(distribution, "level", None), getattr(distribution, "loc", None)
        if level is None or quantile is None:
            raise TypeError(f"{type(distribution).__name__} predicts no quantile at a level of its own")
        residual = y - quantile
        loss = torch.maximum(level * residual, (level - 1) * residual)
        self.totals = self.totals + sums(weight, loss, (residual <= 0).to(loss.dtype))

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, loss, below = self.totals
        return {"pinball": loss / population, "below": below / population}
