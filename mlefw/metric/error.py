"""Errors of the predicted mean, in the units of y."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric, sums


class PointError(Metric):
    """`rmse` = √(Σ w (y − mean)² / Σ w) and `mae` = Σ w |y − mean| / Σ w, for the predictive mean."""

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 3)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        error = y - distribution.mean
        self.totals = self.totals + sums(weight, error.square(), error.abs())

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, square, absolute = self.totals
        return {"rmse": torch.sqrt(square / population), "mae": absolute / population}
