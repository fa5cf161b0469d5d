"""The figures that metrics compute for a model on rows: from sums over blocks, or from all rows at once."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import MOST_EXACT, Metric, of_dependent, seen_by
from mlefw.objective.objective import Evaluation, Objective, etas, rows_at_once
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.system.attempt import attempt
from mlefw.system.warning import warn


class StreamedFigures:
    """The figures of a model over rows that are added block by block, in bounded memory.

    Figures that need all rows at once (`Metric.exact`) are exact while the eta of all rows has at most `max_cells`
    numbers; beyond that they are as `Metric.compute` approximates them, and only every second, fourth, … row is kept.
    A metric that fails is left out with a warning.

    Args:
        objective: the model.
        metrics: the metrics to compute.
        max_cells: bound on the numbers of eta that are kept; 0 keeps no rows.

    Attributes:
        num_rows: number of rows added.
        population: sum of their weights.
    """

    def __init__(self, objective: Objective, metrics: Sequence[Metric], max_cells: int = MOST_EXACT) -> None:
        self.objective, self.max_cells = objective, max_cells
        self.num_rows, self.population = 0, 0.0
        # An accumulator for each metric, so that one that fails takes no other with it.
        self._sums = [(metric, Accumulator([metric])) for metric in metrics]
        self._stride, self._num_positions = 1, 0
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that have not failed so far."""
        return [metric for metric, _ in self._sums]

    @torch.no_grad()
    def add(self, rows: Rows) -> None:
        """Add a block of rows."""
        for part in rows.blocks(rows_at_once(self.objective.head, rows)):
            self.add_known(part, self.objective.eta(part.x, part.offset))
        self._thin()

    @torch.no_grad()
    def add_known(self, rows: Rows, eta: Tensor) -> None:
        """Add a block of rows whose eta, (n, *positions, eta_dim), is known."""
        observed = self.objective.observations(rows, eta)
        # One distribution for all metrics: they share what it caches.
        distribution = self.objective.head(observed[0])
        num_rows = rows.num_rows if rows.positions else None
        self._sums = [
            (metric, sums)
            for metric, sums in self._sums
            if attempt(_named(metric), partial(_add, sums, distribution, *observed[1:], num_rows), False)
        ]
        if self.max_cells:
            first = -self._num_positions % self._stride
            self._kept.append(tuple(column[first :: self._stride] for column in observed))  # type: ignore[arg-type]
        self._num_positions += len(observed[0])
        self.num_rows += rows.num_rows
        self.population += rows.population

    def _thin(self) -> None:
        while sum(eta.numel() for eta, _, _ in self._kept) > self.max_cells:
            columns = [torch.cat(column)[::2].clone() for column in zip(*self._kept, strict=True)]
            self._kept = [tuple(columns)]  # type: ignore[list-item]
            self._stride *= 2

    def kept(self) -> tuple[Tensor, Rows]:
        """What is kept: eta, (m, eta_dim), and rows of one observation each, without features and with offset 0."""
        eta, y, weight = (torch.cat(column) for column in zip(*self._kept, strict=True))
        return eta, Rows(torch.zeros(len(y), 0, dtype=torch.float64), y, weight, torch.zeros_like(weight))

    @torch.no_grad()
    def sums(self) -> dict[str, float]:
        """What the metrics compute from their sums over the rows added; the sums start again from zero."""
        found: dict[str, float] = {}
        for metric, sums in self._sums:
            found |= {name: float(value) for name, value in attempt(_named(metric), sums.figures, {}).items()}
        return found

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """The figures of all metrics over the rows added; one that is not finite is left out with a warning."""
        sums, (eta, rows) = self.sums(), self.kept()
        depends = any(sums.has_positions for _, sums in self._sums)
        return _completed(sums, self.objective, self.metrics, rows, eta if self._stride == 1 else None, depends)


@torch.no_grad()
def figures_on(objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]) -> dict[str, float]:
    """The figures of all metrics over evaluated rows.

    A figure that is not finite and a metric that fails are left out with a warning. Figures that need all rows at once
    (`Metric.exact`) are exact where eta has at most `MOST_EXACT` numbers, else approximate.

    Args:
        objective: the model.
        evaluation: the model on the rows.
        rows: the rows.
        metrics: the metrics to compute.
    """
    tally = StreamedFigures(objective, metrics, max_cells=0)
    for part, eta in etas(objective, rows, evaluation.eta):
        tally.add_known(part, eta)
    return completed_figures(tally.sums(), objective, evaluation, rows, tally.metrics)


@torch.no_grad()
def completed_figures(
    sums: Mapping[str, float], objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """Figures from sums over blocks, where possible replaced by exact ones, with NLL, penalty and objective added.

    `sums`: what the metrics computed from their sums. The other arguments are as for `figures_on`.
    """
    is_small = evaluation.eta is not None and evaluation.eta.numel() <= MOST_EXACT
    known = {"nll_nats": evaluation.mean(rows), **sums}
    eta = evaluation.eta if is_small else None
    return _completed(known, objective, metrics, rows, eta, bool(rows.positions))


def _completed(
    sums: Mapping[str, float],
    objective: Objective,
    metrics: Sequence[Metric],
    rows: Rows,
    eta: Tensor | None,
    depends: bool,
) -> dict[str, float]:
    """Add exact figures, penalty and objective, and leave out what is not finite.

    Args:
        sums: the figures that sums gave.
        objective: the model.
        metrics: the metrics.
        rows: all rows.
        eta: theirs, (n, *positions, eta_dim); None where figures that need all rows at once are to stay approximate.
        depends: whether observations may depend on each other, so that some figures are left out.
    """
    values = dict(sums)
    for metric in metrics:
        if eta is not None and metric.has_exact:
            exact = partial(_exact, metric, objective, eta, rows, depends)
            values |= attempt(f"{_named(metric)} from all rows at once", exact, {})
    penalty = float(objective.penalty())
    values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / objective.population}
    if lost := [name for name, value in values.items() if not abs(value) < float("inf")]:
        warn(f"not finite on {rows.num_rows} rows, and so left out: {', '.join(lost)}")
    return {name: value for name, value in values.items() if name not in lost}


def _add(sums: Accumulator, distribution: Distribution, y: Tensor, weight: Tensor, num_rows: int | None) -> bool:
    sums.add(sums.of_block(distribution, y, weight, num_rows))
    return True


def _exact(metric: Metric, objective: Objective, eta: Tensor, rows: Rows, depends: bool) -> dict[str, float]:
    eta, y, weight = objective.observations(rows, eta)
    found = metric.exact(seen_by(metric, objective.head(eta)), y, weight)
    found = of_dependent(found) if depends else found
    return {name: float(value) for name, value in found.items()}


def _named(metric: Metric) -> str:
    name = getattr(metric, "name", None)
    return f"metric {type(metric).__name__}" + (f" of {name}" if isinstance(name, str) else "")


@torch.no_grad()
def floored_share(objective: Objective, evaluation: Evaluation, rows: Rows) -> float:
    """The weighted share of rows, from 0 to 1, in which a scale of the predicted distribution is held by its floor."""
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
    return held_by_floor / rows.population
