"""The figures of a model on rows: from sums over blocks, or from all rows at once."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import MOST_EXACT, Metric
from mlefw.objective.objective import Evaluation, Objective, etas, rows_at_once
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.system.attempt import attempt
from mlefw.system.warning import warn


class Tally:
    """The figures of a model over rows that come a block at a time, in memory that does not grow with them.

    A metric that fails is left out with a warning. Some figures (`Metric.exact`) need all rows at once: they have them
    while eta is of at most `max_cells` numbers, and are as `Metric.compute` approximates them beyond that. What is kept
    then is thinned evenly. With `max_cells` 0 no row is kept.
    """

    def __init__(self, objective: Objective, metrics: Sequence[Metric], max_cells: int = MOST_EXACT) -> None:
        self.objective, self.max_cells = objective, max_cells
        self.num_rows, self.population = 0, 0.0
        # One of each, since one may fail.
        self._sums = [(metric, Accumulator([metric])) for metric in metrics]
        self._stride = 1
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def metrics(self) -> list[Metric]:
        """Those that have not failed."""
        return [metric for metric, _ in self._sums]

    @torch.no_grad()
    def add(self, rows: Rows) -> None:
        """Add a block of rows."""
        for part in rows.blocks(rows_at_once(self.objective.head)):
            self.add_known(part, self.objective.eta(part.x, part.offset))
        self._thin()

    @torch.no_grad()
    def add_known(self, rows: Rows, eta: Tensor) -> None:
        """Add a block of rows whose eta is known."""
        # Metrics share what they need of the distributions of a block.
        distribution = self.objective.head(eta)
        self._sums = [
            (metric, sums)
            for metric, sums in self._sums
            if attempt(_named(metric), partial(_add, sums, distribution, rows), False)
        ]
        if self.max_cells:
            first = -self.num_rows % self._stride
            self._kept.append(tuple(column[first :: self._stride] for column in (eta, rows.y, rows.weight)))  # type: ignore[arg-type]
        self.num_rows += rows.num_rows
        self.population += rows.population

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
    def sums(self) -> dict[str, float]:
        """What the metrics compute from their sums; the next block is the first of other figures."""
        found: dict[str, float] = {}
        for metric, sums in self._sums:
            found |= {name: float(value) for name, value in attempt(_named(metric), sums.figures, {}).items()}
        return found

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Every metric over the rows added; a figure that is not finite is not defined, and left out."""
        sums, (eta, rows) = self.sums(), self.kept()
        return _completed(sums, self.objective, self.metrics, rows, eta if self._stride == 1 else None)


@torch.no_grad()
def figures_on(objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]) -> dict[str, float]:
    """Every metric over the rows of an evaluation; a figure that is not finite is not defined, and left out.

    Figures of all rows at once (`Metric.exact`) are exact where they are not too many for that. A metric that fails is
    left out with a warning.
    """
    tally = Tally(objective, metrics, max_cells=0)
    for part, eta in etas(objective, rows, evaluation.eta):
        tally.add_known(part, eta)
    return completed_figures(tally.sums(), objective, evaluation, rows, tally.metrics)


@torch.no_grad()
def completed_figures(
    sums: Mapping[str, float], objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """What metrics have from sums, with what they know from all rows at once in its place, and the objective."""
    is_small = evaluation.eta is not None and evaluation.eta.numel() <= MOST_EXACT
    known = {"nll_nats": evaluation.mean(rows), **sums}
    return _completed(known, objective, metrics, rows, evaluation.eta if is_small else None)


def _completed(
    sums: Mapping[str, float], objective: Objective, metrics: Sequence[Metric], rows: Rows, eta: Tensor | None
) -> dict[str, float]:
    """`eta` of all rows; None where figures that need all rows at once are to stay as they are."""
    values = dict(sums)
    for metric in metrics:
        if eta is not None and metric.has_exact:
            exact = partial(_exact, metric, objective, eta, rows)
            values |= attempt(f"{_named(metric)} from all rows at once", exact, {})
    penalty = float(objective.penalty())
    values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / objective.population}
    if lost := [name for name, value in values.items() if not abs(value) < float("inf")]:
        warn(f"not finite on {rows.num_rows} rows, and so left out: {', '.join(lost)}")
    return {name: value for name, value in values.items() if name not in lost}


def _add(sums: Accumulator, distribution: Distribution, rows: Rows) -> bool:
    sums.add(sums.of_block(distribution, rows.y, rows.weight))
    return True


def _exact(metric: Metric, objective: Objective, eta: Tensor, rows: Rows) -> dict[str, float]:
    found = metric.exact(objective.head(eta), rows.y, rows.weight)
    return {name: float(value) for name, value in found.items()}


def _named(metric: Metric) -> str:
    name = getattr(metric, "name", None)
    return f"metric {type(metric).__name__}" + (f" of {name}" if isinstance(name, str) else "")


@torch.no_grad()
def floored_share(objective: Objective, evaluation: Evaluation, rows: Rows) -> float:
    """The weighted share of rows with a scale that its floor holds, whatever the head calls it: 0 without a floor."""
    head, held_by_floor = objective.head, 0.0
    if not bool((head.floor > 0).any()):
        return held_by_floor
    for part, eta in etas(objective, rows, evaluation.eta):
        complete = head.complete(eta.double())
        held = (complete <= head.lowest()).any(-1)
        scale = head.least_scale(complete)
        if scale is not None and head.floor.ndim == 0:
            held |= scale <= head.floor / head.gain[0] * (1 + 1e-12)
        held_by_floor += float(weighted_sum(part.weight, held.double()))
    return held_by_floor / float(rows.weight.sum())
