"""`BatchRegime`, the interface of a batch regime; sizes of batches and random orders of rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mlefw.errors import UsageError

_GROUPS_SHUFFLED_TOGETHER = 4
"""Number of groups of consecutive rows whose rows `pieces` shuffles together."""


class BatchRegime(ABC):
    """Which rows each optimiser step of an epoch sees.

    Each step is a pair (row indices, scale) with E[scale · Σ_batch w·nll] = Σ w·nll over all rows. The objective
    divides by the population, so the gradient is unbiased also for a ragged last batch and for row weights.
    """

    max_rows: int = 0
    """Most rows in one backward pass; the gradient of a larger batch is accumulated in slices (0: no limit)."""
    group: int = 0
    """Number of consecutive rows that are read from files together (0: rows are in memory, any order is as fast)."""
    without_replacement: bool = False
    """Whether no batch holds a row twice, so that a batch of `num_rows` rows holds all rows."""

    @abstractmethod
    def batches(self, num_rows: int, epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """The batch of each step of an epoch: its row indices, (size,) int64, and its scale.

        Args:
            num_rows: number of training rows.
            epoch: number of the epoch, from 0.
            generator: generator of this epoch alone, the only source of randomness.
        """

    @abstractmethod
    def num_batches(self, num_rows: int, epoch: int) -> int:
        """The number of steps that `batches` yields in an epoch."""


def check_positive(setting: str, value: int) -> int:
    """The value of a setting as an int; `setting` is its name for the error.

    Raises:
        UsageError: the value is not a positive whole number.
    """
    if isinstance(value, bool) or value != int(value) or value < 1:
        raise UsageError(f"{setting}={value}: expected a whole number of at least 1")
    return int(value)


_AUTO_SIZES = ((2_000, 32), (20_000, 128))
"""Pairs (n, size): below n training rows `auto` is this size, by the first pair that applies."""

_LARGE_AUTO_SIZE = 256
"""The size that `auto` is with more training rows."""


def check_size(value: int | Literal["auto"]) -> int | Literal["auto"]:
    """The value of the setting `batch.size`.

    Raises:
        UsageError: the value is neither a positive whole number nor `auto`.
    """
    return value if value == "auto" else check_positive("batch.size", value)


def size_of(size: int | Literal["auto"], num_rows: int) -> int:
    """Rows of a batch with `num_rows` training rows; `auto` is 32 below 2,000 rows, 128 below 20,000, else 256.

    With few rows, small batches give enough steps within the usual number of epochs. With many rows, larger batches
    reach equal results in a third of the time (measured on the UCI regression tables).
    """
    if size != "auto":
        return size
    return next((rows for limit, rows in _AUTO_SIZES if num_rows < limit), _LARGE_AUTO_SIZE)


def shuffled(num_rows: int, size: int, generator: torch.Generator, group: int = 0) -> Iterator[tuple[Tensor, float]]:
    """Every row once in random order, in batches of `size` rows and a last one of the remainder.

    All batches, also the last one, have the scale ⌈num_rows / size⌉, so that each row counts equally over the epoch.

    Args:
        num_rows: number of training rows.
        size: rows of a batch.
        generator: source of randomness.
        group: `BatchRegime.group`; above 0 the order is that of `pieces`.
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
    """A random order of all rows for data in files, in pieces: each is four groups of consecutive rows, shuffled.

    The groups, of `group` rows each, come in random order. So few places of the files are read at a time.
    """
    starts = group * torch.randperm(-(-num_rows // group), generator=generator)
    for some in starts.split(_GROUPS_SHUFFLED_TOGETHER):
        rows = torch.cat([torch.arange(start, min(start + group, num_rows)) for start in some.tolist()])
        yield rows[torch.randperm(len(rows), generator=generator)]
