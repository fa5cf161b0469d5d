"""The figures of a model on rows, each of which stands alone."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import MOST_EXACT, Metric, bare
from mlefw.objective.objective import Evaluation, Objective, etas
from mlefw.rows.rows import Rows, total
from mlefw.system.attempt import attempt
from mlefw.system.warning import warn


@torch.no_grad()
def figures_on(objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]) -> dict[str, float]:
    """Every metric over the rows of an evaluation; a figure that is not finite is not defined, and left out.

    Figures of all rows at once (`Metric.exact`) are exact where they are not too many for that. A metric that fails is
    left out with a warning.
    """
    values: dict[str, Tensor] = {}
    for metric in metrics:
        metric.reset()
    for part, eta in etas(objective, rows, evaluation.eta):
        # Metrics share what they need of the distributions of a block.
        distribution = objective.head(eta)
        metrics = [m for m in metrics if attempt(_named(m), partial(_add, m, distribution, part), False)]
    for metric in metrics:
        values |= attempt(_named(metric), bare(metric.compute), {})
        metric.reset()
    return completed_figures(
        {name: float(value) for name, value in values.items()}, objective, evaluation, rows, metrics
    )


@torch.no_grad()
def completed_figures(
    sums: Mapping[str, float], objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """What metrics have from sums, with what they know from all rows at once in its place, and the objective."""
    values = {"nll_nats": evaluation.mean(rows), **sums}
    eta = evaluation.eta
    for metric in metrics:
        if eta is None or eta.numel() > MOST_EXACT or not metric.has_exact:
            continue
        exact = partial(_exact, metric, objective, eta, rows)
        values |= attempt(f"{_named(metric)} from all rows at once", exact, {})
    penalty = float(objective.penalty())
    values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / objective.population}
    if lost := [name for name, value in values.items() if not abs(value) < float("inf")]:
        warn(f"not finite on {rows.num_rows} rows, and so left out: {', '.join(lost)}")
    return {name: value for name, value in values.items() if name not in lost}


def _add(metric: Metric, distribution: Distribution, rows: Rows) -> bool:
    bare(metric.update)(distribution, rows.y, rows.weight)
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
        held_by_floor += float(total(part.weight, held.double()))
    return held_by_floor / float(rows.weight.sum())
