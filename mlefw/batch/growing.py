"""Growing mini-batches: less gradient noise in later epochs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime, check_positive, shuffled
from mlefw.errors import UsageError


class GrowingBatch(BatchRegime):
    """Every row once an epoch, in batches of size · factor^⌊epoch / every⌋ rows, at most all (Smith et al., 2018).

    Args:
        size: rows of a batch in the first epochs.
        factor: by how much the size grows, above 1.
        every: number of epochs after which it grows.

    Raises:
        UsageError: a setting is out of range.
    """

    without_replacement = True

    def __init__(self, size: int = 32, factor: float = 2.0, every: int = 20) -> None:
        if not 1 < factor < float("inf"):
            raise UsageError(f"batch.factor={factor}: expected a number above 1")
        self.size, self.factor = check_positive("batch.size", size), float(factor)
        self.every = check_positive("batch.every", every)

    def size_at(self, num_rows: int, epoch: int) -> int:
        """The batch size of an epoch, counted from 0."""
        size = float(self.size)
        # By repeated multiplication, since factor ** (epoch // every) overflows in a long run.
        for _ in range(epoch // self.every):
            if size >= num_rows:
                break
            size *= self.factor
        return min(num_rows, int(size))

    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """Every row once, in batches of the epoch's size, the last one ragged."""
        return shuffled(num_rows, self.size_at(num_rows, epoch), generator, self.group)

    def num_batches(self, num_rows: int, epoch: int) -> int:
        """⌈num_rows / batch size of the epoch⌉."""
        return -(-num_rows // self.size_at(num_rows, epoch))
