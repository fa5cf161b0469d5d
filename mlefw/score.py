"""The figures of a model on rows, and its distance from the exact estimate, as plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.predictor import as_objective
from mlefw.baseline.refit import head_refit_gap
from mlefw.metric.base import MOST_EXACT, Metric, bare
from mlefw.objective import Evaluation, Objective, evaluate
from mlefw.rows import Rows, total

_MOST_KEPT = 100_000
"""Rows of a split, up to which what the reference says of them is kept for the end."""


@torch.no_grad()
def figures(objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]) -> dict[str, float]:
    """Every metric over the rows of an evaluation; a figure that is not finite is not defined, and left out.

    Figures of all rows at once (`Metric.exact`) are exact where they are not too many for that.
    """
    values: dict[str, Tensor] = {}
    for metric in metrics:
        metric.reset()
    for start in range(0, rows.num_rows, 16384):
        part = rows.take(slice(start, start + 16384))
        # Metrics share what they need of the distributions of a block.
        distribution = objective.head(evaluation.eta[start : start + 16384])
        for metric in metrics:
            bare(metric.update)(distribution, part.y, part.weight)
    for metric in metrics:
        values |= bare(metric.compute)()
        metric.reset()
    return completed({name: float(value) for name, value in values.items()}, objective, evaluation, rows, metrics)


@torch.no_grad()
def completed(
    sums: Mapping[str, float], objective: Objective, evaluation: Evaluation, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """What metrics have from sums, with what they know from all rows at once in its place, and the objective."""
    values = dict(sums)
    for metric in (metric for metric in metrics if metric.has_exact and evaluation.eta.numel() <= MOST_EXACT):
        exact = metric.exact(objective.head(evaluation.eta), rows.y, rows.weight)
        values |= {name: float(value) for name, value in exact.items()}
    penalty = float(objective.penalty())
    values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / objective.population}
    return {name: value for name, value in values.items() if abs(value) < float("inf")}


@dataclass(frozen=True)
class Exact:
    """The exact estimates of a run: null model, linear MLE, under a prior the linear MAP.

    `optimum` is what training itself would reach with a linear model: the MLE without a prior, else the MAP; None
    where the estimates were asked for on a part of the features.
    """

    null: Solution
    mle: Solution | None = None
    map: Solution | None = None
    optimum: Solution | None = None
    seconds: float = 0.0

    @property
    def reference(self) -> tuple[str, Solution] | None:
        """What gaps are measured from: the MLE, or the MAP where there is no MLE."""
        for name, solution in (("mle", self.mle), ("map", self.map)):
            if solution is not None and solution.exists and solution.converged:
                return name, solution
        return None


class Yardstick:
    """The exact estimates on the rows of a run, evaluated once: what each epoch and the end are measured by.

    Attributes:
        lines: mean NLL by estimate that exists and split.
        gained: NLL of the null model minus that of the reference, and the paired standard error, by split.
        optimum: what training would reach with a linear model, where it exists and is certified.
        reference: what gaps are measured from, as a model.
    """

    def __init__(self, exact: Exact, objective: Objective, splits: dict[str, Rows]) -> None:
        self.exact, self.gained = exact, dict[str, tuple[float, float]]()
        found = exact.optimum
        self.optimum = found if found is not None and found.exists and found.converged else None
        self.measure = None if self.optimum is None else distance.parameter_measure(objective, self.optimum)
        known = {"null": exact.null, "mle": exact.mle, "map": exact.map}
        objectives = {
            name: as_objective(solution, objective)
            for name, solution in known.items()
            if solution is not None and (solution.exists or name == "null")
        }
        self.lines: dict[str, dict[str, float]] = {name: {} for name in objectives}
        self.reference = None if exact.reference is None else objectives[exact.reference[0]]
        self._at_reference: dict[str, Evaluation] = {}
        for split, rows in splits.items():
            evaluations = {name: evaluate(exact_objective, rows) for name, exact_objective in objectives.items()}
            for name, evaluation in evaluations.items():
                if abs(value := _mean(evaluation, rows)) < float("inf"):
                    self.lines[name][split] = value
            if exact.reference is not None:
                self.gained[split] = distance.gap(evaluations["null"], evaluations[exact.reference[0]], rows)
                if rows.num_rows <= _MOST_KEPT:
                    self._at_reference[split] = evaluations[exact.reference[0]]

    def at_reference(self, split: str, rows: Rows) -> Evaluation:
        """The reference on the rows of a split."""
        assert self.reference is not None
        return self._at_reference.get(split) or evaluate(self.reference, rows)

    def epoch(self, split: str, figures: Mapping[str, float], objective: Objective) -> dict[str, float]:
        """`gap_nats` and `skill` of an epoch's figures; on the training rows of a linear model also the distance of
        its parameters and its `excess_objective`.
        """
        values: dict[str, float] = {}
        if self.exact.reference is not None and split in self.lines[self.exact.reference[0]]:
            gap = figures["nll_nats"] - self.lines[self.exact.reference[0]][split]
            skill = distance.skill(gap, 0.0, *self.gained[split])
            values |= {"gap_nats": gap} | ({} if skill is None else {"skill": skill})
        if split == "train" and self.optimum is not None and self.measure is not None:
            values["excess_objective"] = figures["objective"] - self.optimum.objective
            values |= {f"parameter_{name}": value for name, value in self.measure(objective).items()}
        return {name: value for name, value in values.items() if abs(value) < float("inf")}


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
    content |= {"converged": solution.converged, "solver": solution.solver}
    content |= {"residual": solution.residual} if abs(solution.residual) < float("inf") else {}
    content |= {"is_global": solution.is_global}
    content |= {split: {"nll_nats": value} for split, value in (line or {}).items()}
    return content


@torch.no_grad()
def distances(
    objective: Objective,
    evaluations: dict[str, Evaluation],
    splits: dict[str, Rows],
    yardstick: Yardstick,
    final: tuple[Objective, dict[str, Evaluation]] | None = None,
) -> dict[str, Any]:
    """The `distance` of `summary.json`: gaps in nats, skill, divergence, parameters, excess objective, refit.

    Gaps, skill and divergence are those of the `final` model, where a recalibration followed the training; all that
    tells how far training came is that of the objective it descended.
    """
    content: dict[str, Any] = {}
    exact, optimum, train = yardstick.exact, yardstick.optimum, splits["train"]
    if optimum is not None and _is_comparable(objective):
        excess = _mean(evaluations["train"], train) + float(objective.penalty()) / objective.population
        content["excess_objective"] = excess - optimum.objective
        if yardstick.measure is not None:
            content["parameter"] = dict[str, Any](yardstick.measure(objective))
            if objective.prior.flat:
                inside = distance.inside_95_region(optimum, content["excess_objective"])
                content["parameter"]["inside_95_region"] = inside
    refit = head_refit_gap(objective, train)
    if refit is not None:
        content["head_refit_gap"] = refit
    if exact.reference is None or yardstick.reference is None:
        return content
    content["reference"] = exact.reference[0]
    predicts, evaluations = final or (objective, evaluations)
    content |= {"gap_nats": {}, "gap_se": {}, "skill": {}}
    decisive: dict[str, Any] = {}
    for split, rows in splits.items():
        at_exact = yardstick.at_reference(split, rows)
        difference = distance.differences(evaluations[split], at_exact, rows)
        mean, error = distance.paired(difference, rows.weight)
        few = distance.decisive(difference, rows.weight)
        if few is not None and max(abs(few.mean), few.error) < float("inf"):
            decisive[split] = few._asdict()
        skill = distance.skill(mean, 0.0, *yardstick.gained[split])
        for key, value in (("gap_nats", mean), ("gap_se", error), ("skill", skill)):
            if value is not None and abs(value) < float("inf"):
                content[key][split] = value
        if split == "train":
            at_model = evaluations[split].eta
            divergence = distance.predictive_kl(predicts, yardstick.reference, at_model, at_exact.eta, rows.weight)
            if divergence is not None:
                content["predictive_kl"] = {"train": divergence}
    return content | ({"decisive": decisive} if decisive else {})


def _is_comparable(objective: Objective) -> bool:
    """Whether the objective holds all weights of the model, as that of a linear model does: none frozen out of it."""
    return objective.prior.flat or all(p.requires_grad for p in objective.model.parameters())


def _mean(evaluation: Evaluation, rows: Rows) -> float:
    return float(total(rows.weight, evaluation.nll) / rows.weight.sum())
