"""Mini-batches without replacement."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_size, shuffled, size_of


class MiniBatch(BatchRegime):
    """Every row once an epoch, in a new random order, `size` rows a step (`auto`: by the number of rows)."""

    without_replacement = True

    def __init__(self, size: int | Literal["auto"] = "auto") -> None:
        self.size = check_size(size)

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """⌈num_rows / size⌉ batches, the last one ragged."""
        return shuffled(num_rows, size_of(self.size, num_rows), generator, self.group)

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """⌈num_rows / size⌉."""
        return -(-num_rows // size_of(self.size, num_rows))
