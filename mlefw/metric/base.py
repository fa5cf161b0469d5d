"""What a metric is: sums over rows, so that it does not depend on batches, order or the number of devices."""

from abc import abstractmethod
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torch.distributions import Distribution


class Metric(torchmetrics.Metric):
    """A set of named figures of a predictive distribution against observed targets.

    `update` takes a Distribution of batch shape (n,), y (n, *event_shape) and weight (n,); `compute` returns scalars
    by their names in `summary.json`. A figure that is not defined on the rows seen is left out.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def add_sum(self, name: str, *shape: int) -> None:
        """A float64 state of this shape that starts at zero and adds up over devices."""
        self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The figures over all rows added."""


def histogram(index: Tensor, weight: Tensor, num_bins: int) -> Tensor:
    """Sum of weights in each bin, (num_bins,), for bin indices (n,)."""
    return torch.zeros(num_bins, dtype=weight.dtype, device=weight.device).index_add_(0, index, weight)
