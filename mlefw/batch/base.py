"""What a batch regime is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.errors import UsageError


class BatchRegime(ABC):
    """Which rows each optimiser step of an epoch sees.

    A step comes as (row indices, scale) with E[scale · Σ_batch w·nll] = Σ w·nll over all rows: the objective
    divides by the population, so the gradient is unbiased for ragged batches and for row weights alike.
    """

    max_rows: int = 0
    """Most rows of one backward pass; a larger batch is accumulated in slices (0: no limit)."""
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


def shuffled(num_rows: int, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
    """Every row once, in random order, `size` at a time.

    All batches carry the scale ⌈n / size⌉, the ragged last one too: over the epoch each row then weighs the same.
    """
    order = torch.randperm(num_rows, generator=generator)
    scale = float(-(-num_rows // size))
    for start in range(0, num_rows, size):
        yield order[start : start + size], scale
