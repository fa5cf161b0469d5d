"""Mini-batches without replacement."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_positive, shuffled


class MiniBatch(BatchRegime):
    """Every row once an epoch, in a new random order, `size` rows a step."""

    without_replacement = True

    def __init__(self, size: int = 32) -> None:
        self.size = check_positive("batch.size", size)

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """Every row once, in ⌈num_rows / size⌉ batches, the last one ragged."""
        return shuffled(num_rows, self.size, generator, self.group)

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """⌈num_rows / size⌉."""
        return -(-num_rows // self.size)
