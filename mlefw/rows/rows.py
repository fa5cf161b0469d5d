"""The plain containers in which rows travel from a data source to the objective."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlefw.errors import UsageError

_ALIGNED = 16
"""Rows of four bytes in a cache line."""

_PIECE = 2**18
"""Rows of which a product is computed at a time: their number may be beyond memory."""

FILE_STEP = 2**40
"""More rows than any one file has."""


@dataclass(frozen=True)
class Table:
    """Named columns of equal length as a source read them, before any coding.

    A column is a one-dimensional array: float64 (or integer) numbers, booleans, or objects holding `str`.
    `first_row` is the number a user would give to the first row (2 for a CSV file with a header), and
    `origin` says where the rows come from, both for error messages alone. `numbers` holds these numbers row by
    row where they are not consecutive: after a random split, or between blank lines. Of a table read from several
    files they count on from file to file in steps of `FILE_STEP`, and `files` has the names.
    `holes` marks the missing cells of a column that has any; what the column itself holds there means nothing.
    `orders` has the levels of a column of text whose source says their order, from the lowest to the highest.
    `release` lets the memory go that holds what was read of columns in files.
    """

    columns: dict[str, np.ndarray]
    origin: str
    first_row: int = 0
    numbers: np.ndarray | None = None
    files: tuple[str, ...] = ()
    holes: dict[str, np.ndarray] = field(default_factory=dict)
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    release: Callable[[], None] = field(default=lambda: None, compare=False)

    def __post_init__(self) -> None:
        """Hold columns to what they are to be: a source may be a stranger's.

        Raises:
            UsageError: naming the column and its shape.
        """
        for name, column in self.columns.items():
            if np.ndim(column) != 1 or len(column) != self.num_rows:
                raise UsageError(
                    f"{self.origin}: column {name!r} has shape {np.shape(column)}\n"
                    f"  expected: one value for each row, ({np.shape(next(iter(self.columns.values())))[0]},)"
                )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def take(self, index: np.ndarray) -> "Table":
        """The rows at `index`, in that order."""
        columns = {name: column[index] for name, column in self.columns.items()}
        holes = {name: hole[index] for name, hole in self.holes.items() if hole[index].any()}
        return Table(columns, self.origin, self.first_row, self.row_numbers(index), self.files, holes, self.orders)

    def one_by_one(self, names: Iterable[str]) -> Iterator[str]:
        """The names, of columns that are looked at in turn: what was read of one is let go before the next."""
        for name in names:
            yield name
            self.release()

    def only(self, names: Collection[str]) -> "Table":
        """The same rows with these columns alone."""
        columns = {name: column for name, column in self.columns.items() if name in names}
        return replace(self, columns=columns, holes={name: hole for name, hole in self.holes.items() if name in names})

    def present(self, name: str) -> tuple["Table", np.ndarray]:
        """The rows that have a column, with that column alone, and their positions."""
        hole = self.holes.get(name)
        index = np.arange(self.num_rows) if hole is None else np.flatnonzero(~hole)
        alone = replace(self, columns={name: self.columns[name]}, holes={})
        return (alone if hole is None else alone.take(index)), index

    def row_numbers(self, index: np.ndarray) -> np.ndarray:
        """The numbers a user would give to the rows at `index`."""
        return index + self.first_row if self.numbers is None else self.numbers[index]

    def where(self, mask: np.ndarray, limit: int = 5) -> str:
        """The rows at which `mask` holds, as a message names them: `rows 3, 8, 9, 12, 40 and 7 more`."""
        index = np.flatnonzero(mask)
        return listed(self.called(index[:limit]), len(index))

    def called(self, index: np.ndarray) -> list[str]:
        """The rows at `index`, each as a message names it."""
        return [self._called(number) for number in self.row_numbers(index).tolist()]

    def _called(self, number: int) -> str:
        return f"{number % FILE_STEP} of {self.files[number // FILE_STEP]}" if self.files else str(number)


def listed(names: Sequence[str], count: int) -> str:
    """The first names of `count` rows, as a message lists them."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{'row' if count == 1 else 'rows'} {', '.join(names)}{more}"


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
