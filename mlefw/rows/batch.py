"""Rows of optimiser steps: one batch, and a chunk of several."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlefw.rows.rows import Rows

_ALIGNED = 16
"""Rows of four bytes in a cache line."""


class Batch(NamedTuple):
    """Rows of one optimiser step, with the scale for which scale · Σ w·nll estimates Σ w·nll over all training rows.

    `standardized`: x is already as `Standardized` hands it on.
    """

    rows: Rows
    scale: float
    standardized: bool = False

    def to(self, device: Any) -> "Batch":
        """The same on a device."""
        return self._replace(rows=self.rows.to(device))


class Chunk:
    """The rows of some batches: gathered, and moved to a device, in one go.

    It is no container to Lightning, which would look into each of its parts.

    Args:
        rows: of all batches.
        spans: where each batch begins in them, and how many rows it has.
        scales: that of each batch.
        standardized: of each batch.
        ends: positions of the batches with which an epoch ends, where another one follows without an evaluation.
    """

    def __init__(
        self,
        rows: Rows,
        spans: list[tuple[int, int]],
        scales: list[float],
        standardized: bool = False,
        ends: Collection[int] = (),
    ) -> None:
        self.rows, self.spans, self.scales, self.standardized = rows, spans, scales, standardized
        self.ends = frozenset(ends)

    def to(self, device: Any, **options: Any) -> "Chunk":
        """The same on a device: what Lightning asks of things it moves."""
        rows = self.rows.to(device, **options)
        return Chunk(rows, self.spans, self.scales, self.standardized, self.ends)

    def batches(self) -> Iterator[Batch]:
        """The batches, as views."""
        for (start, size), scale in zip(self.spans, self.scales, strict=True):
            rows = self.rows if size == self.rows.num_rows else self.rows.take(slice(start, start + size))
            yield Batch(rows, scale, self.standardized)


def gathered(
    rows: Rows, steps: Sequence[tuple[Tensor, float]], standardized: bool = False, ends: Collection[int] = ()
) -> Chunk:
    """The chunk of some batches, given the rows of each by index, and its scale."""
    # Where the memory of a batch begins may change how a product is rounded: it always begins on a cache line.
    start, index, spans = 0, [], []
    for members, _ in steps:
        gap = -len(members) % _ALIGNED
        spans.append((start, len(members)))
        index += [members, members.new_zeros(gap)] if gap else [members]
        start += len(members) + gap
    return Chunk(
        rows.take(torch.cat(index).to(rows.x.device)), spans, [scale for _, scale in steps], standardized, ends
    )
