"""The pinball losses of predicted quantiles at several levels, in the unit of y."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.quantiles import Quantiles
from mlefw.metric.base import Metric, sums


class QuantileLevels(Metric):
    """`pinball`: the mean over rows and levels of (y − q) (level − 1{y < q}), q being the quantile at a level.

    - `pinball_0.1`, `pinball_0.5`, …: that of each level.
    - `below_0.1`, …: the share of rows at or below a quantile, which is the level if predictions are calibrated.
    - `crossing`: the share of rows in which the predicted columns had to be sorted.
    """

    totals: Tensor

    def __init__(self, levels: Sequence[float] | None = None) -> None:
        super().__init__()
        self.levels = tuple(levels or ())
        self.add_sum("totals", 2 + 2 * len(self.levels))

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block.

        Raises:
            TypeError: the distribution has no levels of its own.
        """
        if not isinstance(distribution, Quantiles):
            raise TypeError(f"{type(distribution).__name__} predicts no quantiles at levels of its own")
        residual = y.unsqueeze(-1) - distribution.at
        loss = torch.maximum(distribution.p * residual, (distribution.p - 1) * residual)
        crossed = (distribution.raw.diff() < 0).any(-1)
        below = (residual <= 0).to(loss.dtype)
        self.totals = self.totals + sums(weight, crossed.to(loss.dtype), *loss.unbind(-1), *below.unbind(-1))

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        crossed, *rest = self.totals[1:] / self.totals[0]
        losses, below = rest[: len(self.levels)], rest[len(self.levels) :]
        figures = {"pinball": torch.stack(losses).mean(), "crossing": crossed} if losses else {}
        figures |= {f"pinball_{level:g}": loss for level, loss in zip(self.levels, losses, strict=True)}
        return figures | {f"below_{level:g}": share for level, share in zip(self.levels, below, strict=True)}
