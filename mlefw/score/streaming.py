"""The figures of a model over rows that come a block at a time, in memory that does not grow with them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.metric.base import MOST_EXACT, Metric
from mlefw.objective.objective import Objective, rows_at_once
from mlefw.rows.rows import Rows, total


class Tally:
    """Adds up blocks of rows.

    Some figures (`Metric.exact`) need all rows at once: they have them while eta is of at most `max_cells` numbers, and
    are as `Metric.compute` approximates them beyond that. What is kept then is thinned evenly.
    """

    def __init__(self, objective: Objective, metrics: Sequence[Metric], max_cells: int = MOST_EXACT) -> None:
        self.objective, self.metrics, self.max_cells = objective, metrics, max_cells
        self.num_rows, self.population = 0, 0.0
        self._stride = 1
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for metric in metrics:
            metric.reset()

    @torch.no_grad()
    def add(self, rows: Rows) -> None:
        """Add a block of rows."""
        for part in rows.blocks(rows_at_once(self.objective.head)):
            eta = self.objective.eta(part.x, part.offset)
            distribution = self.objective.head(eta)
            for metric in self.metrics:
                metric.update(distribution, part.y, part.weight)
            first = -self.num_rows % self._stride
            self._kept.append(tuple(column[first :: self._stride] for column in (eta, part.y, part.weight)))  # type: ignore[arg-type]
            self.num_rows += part.num_rows
            self.population += part.population
        self._thin()

    def _thin(self) -> None:
        while sum(eta.numel() for eta, _, _ in self._kept) > self.max_cells:
            columns = [torch.cat(column)[::2].clone() for column in zip(*self._kept, strict=True)]
            self._kept = [tuple(columns)]  # type: ignore[list-item]
            self._stride *= 2

    def kept(self) -> tuple[Tensor, Rows]:
        """Eta of the rows that are kept, (m, eta_dim), and these rows, without their features."""
        eta, y, weight = (torch.cat(column) for column in zip(*self._kept, strict=True))
        return eta, Rows(torch.zeros(len(y), 0, dtype=torch.float64), y, weight, torch.zeros_like(weight))

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Every metric over the rows added; a figure that is not finite is not defined, and left out."""
        values: dict[str, float] = {}
        eta, rows = self.kept()
        whole = self.objective.head(eta)
        for metric in self.metrics:
            known = metric.compute()
            known |= metric.exact(whole, rows.y, rows.weight) if self._stride == 1 else {}
            values |= {name: float(value) for name, value in known.items()}
            metric.reset()
        penalty = float(self.objective.penalty())
        values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / self.objective.population}
        return {name: value for name, value in values.items() if abs(value) < float("inf")}


class MeanNll:
    """The mean NLL of an objective over blocks of rows."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self._sum, self._population = objective, 0.0, 0.0

    @torch.no_grad()
    def add(self, rows: Rows) -> None:
        """Add a block of rows."""
        for part in rows.blocks(rows_at_once(self.objective.head)):
            self._sum += float(total(part.weight, self.objective.nll(part)))
            self._population += part.population

    def figures(self) -> dict[str, float]:
        """`nll_nats`, where it is finite."""
        value = self._sum / self._population
        return {"nll_nats": value} if abs(value) < float("inf") else {}
