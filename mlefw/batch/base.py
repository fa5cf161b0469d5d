"""`BatchRegime`, the interface of a batch regime, and random orders of rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mlefw.errors import UsageError

_GROUPS_SHUFFLED_TOGETHER = 4
"""Groups of consecutive rows that are mixed with one another by `pieces`."""


class BatchRegime(ABC):
    """Which rows each optimiser step of an epoch sees.

    Each step is a pair (row indices, scale) with E[scale · Σ_batch w·nll] = Σ w·nll over all rows. The objective
    divides by the population, so the gradient is unbiased also for a ragged last batch and for row weights.
    """

    max_rows: int = 0
    """Most rows in one backward pass; the gradient of a larger batch is accumulated in slices (0: no limit)."""
    group: int = 0
    """Number of consecutive rows that streamed data stores together, to be read together (0: any order is as fast)."""
    without_replacement: bool = False
    """Whether no row is twice in a batch, so that a batch of num_rows rows holds all rows."""

    @abstractmethod
    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """The row indices, (size,) int64, and the scale of each step of an epoch; `generator` is this epoch's."""

    @abstractmethod
    def num_batches(self, num_rows: int, epoch: int) -> int:
        """The number of steps that `batches` yields in an epoch."""


def check_positive(setting: str, value: int) -> int:
    """A positive whole number as an int; `setting` names it in the error.

    Raises:
        UsageError: `value` is not a positive whole number.
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
    """Batches of `size` rows, and a last one of the remainder, that contain every row once in random order.

    All batches, also the last one, have the scale ⌈n / size⌉, so that each row has the same weight over the epoch.
    With `group` above 0 the order comes from `pieces`.
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
    """A random order of rows, in pieces, that reads streamed data a few consecutive stretches at a time.

    Groups of `group` consecutive rows are drawn in random order, a few at a time, and their rows are shuffled together.
    """
    starts = group * torch.randperm(-(-num_rows // group), generator=generator)
    for some in starts.split(_GROUPS_SHUFFLED_TOGETHER):
        rows = torch.cat([torch.arange(start, min(start + group, num_rows)) for start in some.tolist()])
        yield rows[torch.randperm(len(rows), generator=generator)]
