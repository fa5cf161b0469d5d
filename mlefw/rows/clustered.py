"""The mean over observations, and its standard error over units that are independent of each other."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class ClusteredMean(NamedTuple):
    """A mean with its standard error.

    Attributes:
        mean: Σ w·value / Σ w.
        error: standard error; NaN for fewer than two units.
        num_units: number of units with an observation, G.
    """

    mean: float
    error: float
    num_units: int


def clustered_mean(total: Tensor, weight: Tensor, unit: Tensor | None = None) -> ClusteredMean:
    """The mean of values of which rows have sums, and its standard error over units.

    With S_g and W_g the sums of a unit, mean = ΣS / ΣW and r_g = S_g − mean · W_g, the error is
    √(G/(G − 1) · Σ r_g²) / ΣW (Liang & Zeger, 1986): that of weighted least squares on a constant with clusters. For
    differences between two models on the same rows, `total` holds the differences of the sums.

    Args:
        total: Σ w·value of each row, (n,).
        weight: Σ w of each row, (n,); rows of weight zero are no observations.
        unit: the unit of each row, (n,) int64 from 0; by default each row is one.
    """
    some = weight > 0
    total, weight = total.double()[some], weight.double()[some]
    if unit is not None:
        _, code = unit[some].unique(return_inverse=True)
        total, weight = (_sums(column, code) for column in (total, weight))
    count, whole = len(weight), float(weight.sum())
    mean = float(total.sum()) / whole if count else math.nan
    squares = float((total - mean * weight).square().sum())
    error = math.sqrt(count / (count - 1) * squares) / whole if count > 1 else math.nan
    return ClusteredMean(mean, error, count)


def cluster_sums(total: Tensor, weight: Tensor) -> Tensor:
    """Σ S², Σ S·W and Σ W² over units, (3,), which add up over blocks of units (see `cluster_error`).

    Args:
        total: S = Σ w·value of each unit, (G,).
        weight: W = Σ w of each unit, (G,).
    """
    return torch.stack([total.square(), total * weight, weight.square()]).sum(1)


def cluster_error(sums: Tensor, mean: Tensor | float, num_units: Tensor | float, whole: Tensor | float) -> Tensor:
    """The standard error that `clustered_mean` describes, of two units or more, from sums over all of them.

    Args:
        sums: as `cluster_sums` of all units, (3,).
        mean: Σ S / Σ W.
        num_units: number of units with an observation, G.
        whole: Σ W.
    """
    square, mixed, weight = sums
    residuals = (square - 2 * mean * mixed + mean**2 * weight).clamp(min=0)
    return (num_units / (num_units - 1) * residuals).sqrt() / whole


def _sums(column: Tensor, code: Tensor) -> Tensor:
    return column.new_zeros(int(code.max()) + 1 if len(code) else 0).index_add_(0, code, column)


FEWEST_DOCUMENTS = 30
"""Fewest documents that are units by themselves."""


class Units(NamedTuple):
    """Units that are taken as independent of each other.

    Attributes:
        of_row: the unit of each row, (n,) int64 from 0.
        name: their number and what they are, such as `41 blocks`.
    """

    of_row: Tensor
    name: str


def group_units(group: Tensor, weight: Tensor) -> Units:
    """The units of rows in groups: each group is one.

    Args:
        group: what tells the groups of the rows apart, (n,) int64.
        weight: Σ w of each row, (n,); groups of weight zero are not counted in the name.
    """
    count = len(group[weight > 0].unique())
    return Units(group, f"{count} group" + "s" * (count != 1))


def sequence_units(document: Tensor) -> Units:
    """The units of windows of texts: documents if they are 30 or more, else blocks of consecutive windows.

    Windows of one text depend on each other. √n blocks, rounded down, of n windows grow longer than the dependence and
    more as n grows (batch means; Flegal & Jones, 2010).

    Args:
        document: what tells the documents of the windows apart, (n,) int64.
    """
    num_rows = len(document)
    found, code = document.unique(return_inverse=True)
    if len(found) >= FEWEST_DOCUMENTS:
        return Units(code, f"{len(found)} documents")
    count = max(1, math.isqrt(num_rows))
    # Block g has the windows from floor(g · n / count) on.
    of_row = ((torch.arange(num_rows) + 1) * count - 1) // max(num_rows, 1)
    return Units(of_row, f"{count} block" + "s" * (count != 1))


class UnitTally:
    """Adds up values of rows block by block, for their mean with its standard error over units of many rows.

    Memory is 24 bytes a row: which rows make a unit may be known only when all rows are.

    Args:
        units: gives the units, from what tells them apart in each row (n,) and Σ w of each row (n,).
    """

    def __init__(self, units: Callable[[Tensor, Tensor], Units]) -> None:
        self.units = units
        self._blocks: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no block was added."""
        return not self._blocks

    def add(self, total: Tensor, weight: Tensor, code: Tensor) -> None:
        """Add a block: of each row Σ w·value, Σ w, and what tells its unit from others; each (n,)."""
        self._blocks.append((total.double().cpu(), weight.double().cpu(), code.cpu()))

    def result(self) -> tuple[ClusteredMean, str]:
        """The mean over all blocks, and the name of the units; at least one block has to be added."""
        total, weight, code = (torch.cat(column) for column in zip(*self._blocks, strict=True))
        units = self.units(code, weight)
        return clustered_mean(total, weight, units.of_row), units.name
