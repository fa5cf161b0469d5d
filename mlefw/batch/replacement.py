"""Independent draws with replacement, as the theory of stochastic gradient descent assumes."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_size, size_of


class WithReplacement(BatchRegime):
    """Each step draws `size` rows independently and uniformly (`auto`: by the number of rows).

    An epoch is ⌈num_rows / size⌉ steps.
    """

    def __init__(self, size: int | Literal["auto"] = "auto") -> None:
        self.size = check_size(size)

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """⌈num_rows / size⌉ batches of exactly `size` rows."""
        size = size_of(self.size, num_rows)
        for _ in range(self.num_batches(num_rows, epoch)):
            yield torch.randint(num_rows, (size,), generator=generator), num_rows / size

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """⌈num_rows / size⌉."""
        return -(-num_rows // size_of(self.size, num_rows))
