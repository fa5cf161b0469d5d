"""What a batch regime is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mlefw.errors import UsageError

_AT_A_TIME = 4
"""Groups of rows among which an order is random."""


class BatchRegime(ABC):
    """Which rows each optimiser step of an epoch sees.

    A step comes as (row indices, scale) with E[scale · Σ_batch w·nll] = Σ w·nll over all rows: the objective
    divides by the population, so the gradient is unbiased for ragged batches and for row weights alike.
    """

    max_rows: int = 0
    """Most rows of one backward pass; a larger batch is accumulated in slices (0: no limit)."""
    group: int = 0
    """Rows that lie together, and are drawn together where each comes once an epoch (0: each by itself)."""
    without_replacement: bool = False
    """Whether no row is in a batch twice, so that one of as many rows as there are holds all of them."""

    @abstractmethod
    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """The steps of an epoch; `generator` belongs to this epoch alone."""

    @abstractmethod
    def num_batches(self, num_rows: int, epoch: int) -> int:
        """How many steps `batches` will yield."""


def check_positive(setting: str, value: int) -> int:
    """`value` itself.

    Raises:
        UsageError: it is not a positive whole number.
    """
    if isinstance(value, bool) or value != int(value) or value < 1:
        raise UsageError(f"{setting}={value}: expected a whole number of at least 1")
    return int(value)


BatchSize = int | Literal["auto"]
"""Rows of a batch, or `auto`: by the number of training rows."""

_BY_ROWS = ((2_000, 32), (20_000, 128))
_LARGE = 256


def check_size(value: BatchSize) -> BatchSize:
    """`value` itself, as `batch.size`.

    Raises:
        UsageError: it is neither a positive whole number nor `auto`.
    """
    return value if value == "auto" else check_positive("batch.size", value)


def size_of(size: BatchSize, num_rows: int) -> int:
    """Rows of a batch, of so many rows in all; `auto` is 32 below 2,000 rows, 128 below 20,000, and 256 from there on.

    With few rows small batches give the steps that a network needs within its epochs; with many a larger one is
    reached in a third of the time (measured on the UCI regression tables).
    """
    if size != "auto":
        return size
    return next((rows for most, rows in _BY_ROWS if num_rows < most), _LARGE)


def shuffled(num_rows: int, size: int, generator: torch.Generator, group: int = 0) -> Iterator[tuple[Tensor, float]]:
    """Every row once, in random order, `size` at a time.

    All batches carry the scale ⌈n / size⌉, the ragged last one too: over the epoch each row then weighs the same.
    With `group` the order is that of `pieces`.
    """
    scale, left = float(-(-num_rows // size)), torch.empty(0, dtype=torch.long)
    for piece in pieces(num_rows, generator, group) if group else [torch.randperm(num_rows, generator=generator)]:
        order = torch.cat([left, piece]) if len(left) else piece
        whole = len(order) // size * size
        for start in range(0, whole, size):
            yield order[start : start + size], scale
        left = order[whole:]
    if len(left):
        yield left, scale


def pieces(num_rows: int, generator: torch.Generator, group: int) -> Iterator[Tensor]:
    """A random order in which rows that lie together come near each other.

    Groups of consecutive rows come in random order, some at a time, and the rows of these in random order: what is read
    at a time is a few stretches.
    """
    starts = group * torch.randperm(-(-num_rows // group), generator=generator)
    for some in starts.split(_AT_A_TIME):
        rows = torch.cat([torch.arange(start, min(start + group, num_rows)) for start in some.tolist()])
        yield rows[torch.randperm(len(rows), generator=generator)]
