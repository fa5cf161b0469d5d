"""Errors of the predicted mean, in the units of y."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric


class PointError(Metric):
    """`rmse` and `mae` of the predictive mean."""

    population: Tensor
    square: Tensor
    absolute: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("population", "square", "absolute"):
            self.add_sum(name)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        error = y - distribution.mean
        self.population += weight.sum()
        self.square += (weight * error.square()).sum()
        self.absolute += (weight * error.abs()).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        return {"rmse": torch.sqrt(self.square / self.population), "mae": self.absolute / self.population}
