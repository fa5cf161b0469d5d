"""What is known of rows that depend on each other: the clusters they belong to, and their order in time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def _by_position(position: int) -> str:
    return f"{position + 1} of the training rows"


@dataclass(frozen=True)
class Dependence:
    """Clusters and times of the training rows, for standard errors that allow for dependence between rows.

    Attributes:
        clusters: for each grouping the cluster of each row, (n,) int64 from 0; none, one or two groupings.
        names: names of the groupings.
        time: the time of each row, (n,), in the unit of its column; None where rows have none.
        lag: most rows that dependence reaches back in time; None for ⌊4 (n / 100)^(2/9)⌋ (Newey & West, 1994).
        row_name: the name in messages of the row at a position, such as `17`.
    """

    clusters: tuple[Tensor, ...] = ()
    names: tuple[str, ...] = ()
    time: Tensor | None = None
    lag: int | None = None
    row_name: Callable[[int], str] = _by_position

    def take(self, index: Tensor) -> "Dependence":
        """The dependence of the rows at `index`, positions (m,) or a mask (n,)."""
        at = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        clusters = tuple(code[at] for code in self.clusters)
        time = None if self.time is None else self.time[at]
        return replace(self, clusters=clusters, time=time, row_name=lambda row: self.row_name(int(at[row])))

    def num_clusters(self, weight: Tensor) -> list[int]:
        """The number of clusters of each grouping with a row whose weight (n,) is above zero."""
        seen = weight > 0
        return [len(code[seen].unique()) for code in self.clusters]

    def intersection(self) -> Tensor:
        """The cluster of each row where two rows are together if they are in every grouping, (n,)."""
        together, *others = self.clusters
        for code in others:
            together = together * (int(code.max()) + 1) + code
        return together

    def lag_of(self, num_rows: int) -> int:
        """The lag, or its default for a number of rows."""
        return int(4 * (num_rows / 100) ** (2 / 9)) if self.lag is None else self.lag
