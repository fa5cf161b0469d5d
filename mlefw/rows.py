"""The plain containers in which rows travel from a data source to the objective."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Table:
    """Named columns of equal length as a source read them, before any coding.

    A column is a one-dimensional array: float64 (or integer) numbers, booleans, or objects holding `str`.
    `first_row` is the number a user would give to the first row (2 for a CSV file with a header), and
    `origin` says where the rows come from, both for error messages alone. `numbers` holds these numbers row by
    row where they are not consecutive: after a random split, or between blank lines.
    """

    columns: dict[str, np.ndarray]
    origin: str
    first_row: int = 0
    numbers: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def take(self, index: np.ndarray) -> "Table":
        """The rows at `index`, in that order."""
        columns = {name: column[index] for name, column in self.columns.items()}
        return Table(columns, self.origin, self.first_row, self.row_numbers(index))

    def row_numbers(self, index: np.ndarray) -> np.ndarray:
        """The numbers a user would give to the rows at `index`."""
        return index + self.first_row if self.numbers is None else self.numbers[index]

    def where(self, mask: np.ndarray, limit: int = 5) -> str:
        """The rows at which `mask` holds, as a message names them: `rows 3, 8, 9, 12, 40 and 7 more`."""
        index = np.flatnonzero(mask)
        shown = ", ".join(str(number) for number in self.row_numbers(index[:limit]))
        more = f" and {len(index) - limit} more" if len(index) > limit else ""
        return f"{'row' if len(index) == 1 else 'rows'} {shown}{more}"


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

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`, in that order."""
        return Rows(*(column[index] for column in self))

    def blocks(self, size: int) -> Iterator["Rows"]:
        """Consecutive blocks of at most `size` rows."""
        for start in range(0, self.num_rows, size):
            yield self.take(slice(start, start + size))


class Batch(NamedTuple):
    """Rows of one optimiser step, with the scale for which scale · Σ w·nll estimates Σ w·nll over all training rows.

    `standardized`: x is already as `Standardized` hands it on.
    """

    rows: Rows
    scale: float
    standardized: bool = False


@dataclass(frozen=True)
class Chunk:
    """The rows of some batches, one batch after the other: gathered, and moved to a device, in one go."""

    rows: Rows
    sizes: list[int]
    scales: list[float]
    standardized: bool

    def to(self, device: Any, **options: Any) -> "Chunk":
        """The same on a device: what Lightning asks of things it moves."""
        return replace(self, rows=Rows(*(column.to(device, **options) for column in self.rows)))

    def batches(self) -> Iterator[Batch]:
        """The batches, as views."""
        columns = [column.split(self.sizes) for column in self.rows]
        for *parts, scale in zip(*columns, self.scales, strict=True):
            yield Batch(Rows(*parts), scale, self.standardized)
