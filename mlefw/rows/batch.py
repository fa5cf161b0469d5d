"""Batch, the rows of one optimiser step, and Chunk, the rows of several."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlefw.rows.rows import Rows

_ALIGNMENT = 16
"""Each batch of a chunk begins at a multiple of so many rows: with a number of 4 bytes per row, a cache line."""


class Batch(NamedTuple):
    """The rows of one optimiser step.

    Attributes:
        rows: the rows of the batch.
        scale: factor with which scale · Σ w·nll over the batch is an unbiased estimate of Σ w·nll over all training
            rows.
        standardized: whether x holds the inputs of the model, as `Standardized.standardize` returns them, not the
            features.
    """

    rows: Rows
    scale: float
    standardized: bool = False

    def to(self, device: Any) -> "Batch":
        """The batch on a device."""
        return self._replace(rows=self.rows.to(device))


class Chunk:
    """The rows of several batches, taken and moved to a device together.

    A plain class, because Lightning would move each element of a tuple or list by itself.

    Args:
        rows: the rows of all batches, with unused rows between them.
        spans: for each batch the position of its first row in `rows`, and its number of rows.
        scales: the scale of each batch, as `Batch.scale`.
        standardized: as `Batch.standardized`, for all batches.
        epoch_ends: positions of the batches with which an epoch ends that no evaluation follows.
    """

    def __init__(
        self,
        rows: Rows,
        spans: list[tuple[int, int]],
        scales: list[float],
        standardized: bool = False,
        epoch_ends: Collection[int] = (),
    ) -> None:
        self.rows, self.spans, self.scales, self.standardized = rows, spans, scales, standardized
        self.epoch_ends = frozenset(epoch_ends)

    def to(self, device: Any, **options: Any) -> "Chunk":
        """The chunk on a device; Lightning calls it with options of `Tensor.to`."""
        rows = self.rows.to(device, **options)
        return Chunk(rows, self.spans, self.scales, self.standardized, self.epoch_ends)

    def batches(self) -> Iterator[Batch]:
        """The batches, whose tensors are views of those of the chunk."""
        for (start, size), scale in zip(self.spans, self.scales, strict=True):
            rows = self.rows if size == self.rows.num_rows else self.rows.take(slice(start, start + size))
            yield Batch(rows, scale, self.standardized)


def gather_batches(
    rows: Rows, steps: Sequence[tuple[Tensor, float]], standardized: bool = False, epoch_ends: Collection[int] = ()
) -> Chunk:
    """The chunk of some batches of `rows`.

    Args:
        rows: all rows of a split.
        steps: for each batch its row indices, (size,) int64, and its scale.
        standardized: whether `rows.x` holds the inputs of the model.
        epoch_ends: as for `Chunk`.
    """
    # The rounding of a matrix product may depend on the alignment of its operands. All batches begin on a cache line,
    # so that results do not depend on how batches are put into chunks.
    start, index, spans = 0, [], []
    for members, _ in steps:
        gap = -len(members) % _ALIGNMENT
        spans.append((start, len(members)))
        index += [members, members.new_zeros(gap)] if gap else [members]
        start += len(members) + gap
    return Chunk(
        rows.take(torch.cat(index).to(rows.device)), spans, [scale for _, scale in steps], standardized, epoch_ends
    )
