"""The full batch: deterministic gradient descent."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_positive


class FullBatch(BatchRegime):
    """One step an epoch on all rows, in slices of at most `max_rows` whose gradients add up to the same."""

    without_replacement = True

    def __init__(self, max_rows: int = 1_000_000) -> None:
        self.max_rows = check_positive("batch.max_rows", max_rows)

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """All rows at once."""
        yield torch.arange(num_rows), 1.0

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """One."""
        return 1
