"""The figures of a model on rows, and its distance from the exact estimate, as plain numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.predictor import as_objective
from mlefw.metric.base import Metric
from mlefw.objective import Evaluation, Objective, evaluate
from mlefw.rows import Rows


@torch.no_grad()
def figures(objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]) -> dict[str, float]:
    """Every metric over the rows of an evaluation, exact; a figure that is not finite is not defined, and left out."""
    values: dict[str, float] = {}
    for metric in metrics:
        metric.reset()
        for start in range(0, rows.num_rows, 16384):
            part = rows.take(slice(start, start + 16384))
            distribution = objective.head(evaluation.eta[start : start + 16384])
            metric.update(distribution, part.y, part.weight)
        whole = objective.head(evaluation.eta)
        known = metric.compute() | metric.exact(whole, rows.y, rows.weight)
        values |= {name: float(value) for name, value in known.items()}
        metric.reset()
    penalty = float(objective.penalty())
    values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / objective.population}
    return {name: value for name, value in values.items() if abs(value) < float("inf")}


@dataclass(frozen=True)
class Exact:
    """The exact estimates of a run: null model, linear MLE, under a prior the linear MAP.

    `optimum` is what training itself would reach with a linear model: the MLE without a prior, else the MAP.
    """

    null: Solution
    mle: Solution | None = None
    map: Solution | None = None
    optimum: Solution | None = None

    @property
    def reference(self) -> tuple[str, Solution] | None:
        """What gaps are measured from: the MLE, or the MAP where there is no MLE."""
        for name, solution in (("mle", self.mle), ("map", self.map)):
            if solution is not None and solution.exists and solution.converged:
                return name, solution
        return None

    def lines(self, objective: Objective, splits: dict[str, Rows]) -> dict[str, dict[str, float]]:
        """Mean NLL of each estimate that exists, by split."""
        known = {"null": self.null, "mle": self.mle, "map": self.map}
        lines = {}
        for name, solution in known.items():
            if solution is not None and (solution.exists or name == "null"):
                exact = as_objective(solution, objective)
                lines[name] = {split: _mean(evaluate(exact, rows), rows) for split, rows in splits.items()}
        return {
            name: {split: value for split, value in values.items() if abs(value) < float("inf")}
            for name, values in lines.items()
        }


def describe(solution: Solution | None, line: dict[str, float] | None) -> dict[str, Any] | None:
    """An exact estimate as `summary.json` has it."""
    if solution is None:
        return None
    content: dict[str, Any] = {"exists": solution.exists}
    if not solution.exists:
        content["reason"] = solution.reason
        if solution.infimum is not None:
            content["nll_infimum"] = solution.infimum
        return content
    content |= {"converged": solution.converged, "residual": solution.residual, "solver": solution.solver}
    content |= {"is_global": solution.is_global}
    content |= {split: {"nll_nats": value} for split, value in (line or {}).items()}
    return content


@torch.no_grad()
def distances(
    objective: Objective,
    evaluations: dict[str, Evaluation],
    splits: dict[str, Rows],
    exact: Exact,
    lines: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """The `distance` of `summary.json`: gaps in nats, skill, divergence, parameters, excess objective."""
    content: dict[str, Any] = {}
    if exact.optimum is not None and exact.optimum.exists and exact.optimum.converged:
        at = _mean(evaluations["train"], splits["train"]) + float(objective.penalty()) / objective.population
        content["excess_objective"] = at - exact.optimum.objective
        parameter = distance.parameter_distance(objective, exact.optimum)
        if parameter is not None:
            content["parameter"] = parameter
    if exact.reference is None:
        return content
    name, solution = exact.reference
    content["reference"] = name
    reference = as_objective(solution, objective)
    null = as_objective(exact.null, objective)
    content |= {"gap_nats": {}, "gap_se": {}, "skill": {}}
    for split, rows in splits.items():
        at_exact = evaluate(reference, rows)
        mean, error = distance.gap(evaluations[split], at_exact, rows)
        gained, null_error = distance.gap(evaluate(null, rows), at_exact, rows)
        skill = distance.skill(mean, 0.0, gained, null_error)
        for key, value in (("gap_nats", mean), ("gap_se", error), ("skill", skill)):
            if value is not None and abs(value) < float("inf"):
                content[key][split] = value
        if split == "train":
            weight = rows.weight
            divergence = distance.predictive_kl(
                objective, reference, evaluations[split].eta.double(), at_exact.eta, weight
            )
            if divergence is not None:
                content["predictive_kl"] = {"train": divergence}
    return content


def _mean(evaluation: Evaluation, rows: Rows) -> float:
    return float((rows.weight * evaluation.nll).sum() / rows.weight.sum())
