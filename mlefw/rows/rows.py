"""Rows, the container of coded rows from the data source to the objective, and sums over observations."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BLOCK = 2**18
"""Observations that a sum handles at a time, since all of them may not fit into memory."""


class Rows(NamedTuple):
    """Coded rows of one split. The batch shape is that of the weights: (n, *positions).

    A row is the unit of independence. An observation is a position of a row with a weight above zero; a weight of zero
    masks its position. Rows of a table, and images with one label each, have no positions: a row is one observation.

    Attributes:
        x: inputs, (n, *input_shape), in original units unless a caller says otherwise: float64 features of a table, or
            an array in a type of its own.
        y: targets, (n, *positions, *event_shape): float64, codes in int64, or an array in a type of its own.
        weight: weights, (n, *positions), float64, which are frequencies: weight 2 counts as the observation twice.
        offset: term added to the first column of eta, (n, *positions), float64; in rows of a table also one term for
            each column of eta, (n, eta_dim).
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
    def num_per_epoch(self) -> int:
        """Number of rows that an epoch of training draws from."""
        return self.num_rows

    def of_epoch(self, generator: torch.Generator) -> "Rows":
        """The rows that an epoch of training draws from, (num_per_epoch,): the rows themselves."""
        return self

    @property
    def is_moving(self) -> bool:
        """Whether training draws from other rows in each epoch."""
        return False

    @property
    def positions(self) -> torch.Size:
        """Shape of the observations of a row: empty where a row is one observation."""
        return self.weight.shape[1:]

    @property
    def input_shape(self) -> torch.Size:
        """Shape of the inputs of a row."""
        return self.x.shape[1:]

    @property
    def device(self) -> torch.device:
        """The device of all columns."""
        return self.x.device

    @property
    def population(self) -> float:
        """Sum of the weights: the number of observations, since weights are frequencies."""
        return float(self.weight.sum())

    @property
    def first_offset(self) -> Tensor:
        """The offset of the first column of eta, (n, *positions)."""
        return self.offset if self.offset.ndim == self.weight.ndim else self.offset[..., 0]

    @property
    def row_weight(self) -> Tensor:
        """Sum of the weights of each row, (n,): its number of observations."""
        return self.weight.flatten(1).sum(1) if self.positions else self.weight

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that all columns take together; columns that are views of one memory share it."""
        held: dict[int, int] = {}
        for column in self:
            # A view takes no more than its storage, and an expanded number takes a single one.
            own = column.numel() * column.element_size()
            storage = column.untyped_storage()
            held[storage.data_ptr()] = min(held.get(storage.data_ptr(), 0) + own, storage.nbytes())
        return sum(held.values())

    def to(self, device: Any, **options: Any) -> "Rows":
        """The rows on a device, copied only where they are on another one; `options` are those of `Tensor.to`."""
        if torch.device(device) == self.device:
            return self
        return Rows(*(_moved(column, device, options) for column in self))

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`, in its order; an int64 index may have any shape, which replaces n in the shapes."""
        if isinstance(index, Tensor) and index.dtype == torch.long:
            # `index_select` is several times as fast as indexing. It also reads columns that are views of one number.
            flat = (column.index_select(0, index.reshape(-1)) for column in self)
            return Rows(*(column.view(*index.shape, *column.shape[1:]) for column in flat))
        return Rows(*(column[index] for column in self))

    def gathered(self) -> "Rows":
        """The rows with their own tensors x, y, weight and offset: as they are, but for rows that keep a stream."""
        return self

    def new_empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """An uninitialised tensor, (num_rows, *shape), on the device of the rows."""
        return self.x.new_empty((self.num_rows, *shape), dtype=dtype)

    def blocks(self, size: int) -> Iterator["Rows"]:
        """The rows in consecutive blocks of at most `size` rows."""
        for start in range(0, self.num_rows, size):
            yield self.take(slice(start, start + size))

    def flattened(self, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eta (m, eta_dim), targets (m, *event_shape) and weights (m,) of all m positions of all rows, masked or not.

        For rows without positions they are `eta`, y and weight as they are.

        Args:
            eta: (n, *positions, eta_dim).
        """
        if not self.positions:
            return eta, self.y, self.weight
        last = len(self.positions)
        return eta.flatten(0, last), self.y.flatten(0, last), self.weight.flatten()

    def row_means(self, value: Tensor) -> Tensor:
        """The weighted mean of a value over the observations of each row, (n,); 0 for a row without any.

        For rows without positions it is the value as it is, whatever the weight.

        Args:
            value: of each position, (n, *positions); it may be infinite where the weight is zero.
        """
        if not self.positions:
            return value
        seen = torch.where(self.weight > 0, self.weight * value, 0.0).flatten(1).sum(1)
        return seen / self.row_weight.clamp(min=torch.finfo(self.weight.dtype).tiny)


def padded_blocks(rows: Rows, size: int, count: int) -> Iterator[Rows]:
    """The rows in consecutive blocks of at most `size` rows, and behind them empty blocks up to `count` in all."""
    yield from rows.blocks(size)
    for _ in range(count - -(-rows.num_rows // size)):
        yield rows.take(torch.arange(0, device=rows.device))


def observation_rows(rows: Rows) -> Rows:
    """Rows without inputs of which each is one observation; where rows have positions, those of weight above zero.

    For what the distribution of the targets alone determines, such as a null model.
    """
    if not rows.positions:
        return rows._replace(x=rows.x.new_empty((rows.num_rows, 0), dtype=torch.float64))
    seen = rows.weight > 0
    offset = rows.offset[seen]
    return Rows(offset.new_empty(len(offset), 0), rows.y[seen], rows.weight[seen], offset)


def add_offset(eta: Tensor, offset: Tensor) -> Tensor:
    """Add the offset of rows of one observation, (n,) or (n, eta_dim), to eta (n, columns) in place; eta itself."""
    if offset.ndim == 1:
        eta[:, 0] += offset
    else:
        eta[:, : offset.shape[1]] += offset
    return eta


def constant(value: float, shape: Sequence[int]) -> Tensor:
    """A float64 tensor of this shape in the memory of one number, for weights and offsets that are all alike."""
    return torch.tensor(value, dtype=torch.float64).expand(tuple(shape))


def weighted_sum(weight: Tensor, value: Tensor) -> Tensor:
    """Σ weight · value of two tensors of one shape, a scalar; where weight is zero, an infinite value adds nothing."""
    size = max(1, _BLOCK // max(1, math.prod(weight.shape[1:])))
    if len(weight) > size:
        parts = zip(weight.split(size), value.split(size), strict=True)
        return torch.stack([weighted_sum(*part) for part in parts]).sum()
    if weight.ndim > 1:
        weight, value = weight.flatten(), value.flatten()
    return torch.dot(weight, torch.where(weight > 0, value, 0.0))


def _moved(column: Tensor, device: Any, options: dict[str, Any]) -> Tensor:
    """A column on a device; of an expanded number the number alone travels."""
    if column.numel() and not any(column.stride()):
        return column[(slice(0, 1),) * column.ndim].to(device, **options).expand(column.shape)
    return column.to(device, **options)
