"""Rows, the container of coded rows from the data source to the objective, and sums over rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BLOCK_ROWS = 2**18
"""Rows that a sum over rows handles at a time, since all of them may not fit into memory."""


class Rows(NamedTuple):
    """Coded rows of one split, float64 but for y where it is an integer.

    Attributes:
        x: features, (n, num_features), in original units unless a caller says otherwise.
        y: targets, (n, *event_shape).
        weight: row weights, (n,), which are frequencies: weight 2 counts as the row twice.
        offset: term added to the first column of eta, (n,).
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    offset: Tensor

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    @property
    def population(self) -> float:
        """Sum of the row weights: the number of observations, since weights are frequencies."""
        return float(self.weight.sum())

    @property
    def num_bytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.numel() * column.element_size() for column in self)

    def to(self, device: Any, **options: Any) -> "Rows":
        """The rows on a device, copied only where they are on another one; `options` are those of `Tensor.to`."""
        if torch.device(device) == self.x.device:
            return self
        return Rows(*(column.to(device, **options) for column in self))

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`, in its order; an int64 index may have any shape, which replaces n in the shapes."""
        if isinstance(index, Tensor) and index.dtype == torch.long:
            # `index_select` is several times as fast as indexing.
            flat = (column.index_select(0, index.reshape(-1)) for column in self)
            return Rows(*(column.view(*index.shape, *column.shape[1:]) for column in flat))
        return Rows(*(column[index] for column in self))

    def new_empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """An uninitialised tensor, (num_rows, *shape), on the device of the rows."""
        return self.x.new_empty((self.num_rows, *shape), dtype=dtype)

    def blocks(self, size: int) -> Iterator["Rows"]:
        """The rows in consecutive blocks of at most `size` rows."""
        for start in range(0, self.num_rows, size):
            yield self.take(slice(start, start + size))


def weighted_sum(weight: Tensor, value: Tensor) -> Tensor:
    """Σ weight · value of two tensors (n,), a scalar; a row of weight zero adds nothing, even if value is infinite."""
    if len(weight) > _BLOCK_ROWS:
        parts = zip(weight.split(_BLOCK_ROWS), value.split(_BLOCK_ROWS), strict=True)
        return torch.stack([weighted_sum(*part) for part in parts]).sum()
    return torch.dot(weight, torch.where(weight > 0, value, 0.0))
