"""The full batch: deterministic gradient descent."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_positive


class FullBatch(BatchRegime):
    """One step on all rows in each epoch; its gradient is summed over slices of at most `max_rows` rows."""

    without_replacement = True

    def __init__(self, max_rows: int = 1_000_000) -> None:
        self.max_rows = check_positive("batch.max_rows", max_rows)

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """A single batch of all rows, with scale 1."""
        yield torch.arange(num_rows), 1.0

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """1, since an epoch is one step."""
        return 1
