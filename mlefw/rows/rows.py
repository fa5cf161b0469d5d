"""The plain containers in which rows travel from a data source to the objective."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_PIECE = 2**18
"""Rows of which a product is computed at a time: their number may be beyond memory."""


class Rows(NamedTuple):
    """Coded rows: x (n, num_features), y (n, *event_shape), weight (n,), offset (n,), all float64 except integer y."""

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
        """Size of the numbers."""
        return sum(column.numel() * column.element_size() for column in self)

    def to(self, device: Any, **options: Any) -> "Rows":
        """The same on a device; itself where it is there."""
        if torch.device(device) == self.x.device:
            return self
        return Rows(*(column.to(device, **options) for column in self))

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`, in that order and shape."""
        if isinstance(index, Tensor) and index.dtype == torch.long:
            # Several times as fast as indexing.
            flat = (column.index_select(0, index.reshape(-1)) for column in self)
            return Rows(*(column.view(*index.shape, *column.shape[1:]) for column in flat))
        return Rows(*(column[index] for column in self))

    def room(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """Room for some numbers of each row, (num_rows, *shape), where the rows are; what it holds means nothing."""
        return self.x.new_empty((self.num_rows, *shape), dtype=dtype)

    def blocks(self, size: int) -> Iterator["Rows"]:
        """Consecutive blocks of at most `size` rows."""
        for start in range(0, self.num_rows, size):
            yield self.take(slice(start, start + size))


def total(weight: Tensor, value: Tensor) -> Tensor:
    """Σ w·value over rows (n,), a scalar; a row of weight zero does not count, not even with an infinite value."""
    if len(weight) > _PIECE:
        parts = zip(weight.split(_PIECE), value.split(_PIECE), strict=True)
        return torch.stack([total(*part) for part in parts]).sum()
    return torch.dot(weight, torch.where(weight > 0, value, 0.0))
