"""The exact estimates beside a run, and what each epoch of its training is measured by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.predictor import as_objective
from mlefw.objective.objective import Evaluation, Objective, evaluate
from mlefw.rows.rows import Rows
from mlefw.system.atomic import Json

_MOST_KEPT = 100_000
"""Rows of a split, up to which what the reference says of them is kept for the end."""

_NEAR = 1e-3
"""Bound of its excess, in nats per row, from which an estimate that was stopped is good enough to compare with."""


@dataclass(frozen=True)
class Exact:
    """The exact estimates of a run: null model, linear MLE, under a prior the linear MAP.

    `optimum` is what training itself would reach with a linear model: the MLE without a prior, else the MAP; None
    where the estimates were asked for on a part of the features. Where neither is a reference, a `ridge` MAP is one: it
    exists where classes are separated, too. `left_out` says why an estimate was not computed, by its name.
    """

    null: Solution
    mle: Solution | None = None
    map: Solution | None = None
    ridge: Solution | None = None
    optimum: Solution | None = None
    seconds: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_asked(self) -> bool:
        """Whether estimates beside the null model were asked for, as `baseline=none` does not."""
        return bool(self.known or self.left_out)

    @property
    def reference(self) -> tuple[str, Solution] | None:
        """What gaps are measured from: the MLE, or the MAP where there is no MLE, or else the ridge MAP."""
        for name, solution in self.known.items():
            if solution.may_exist and (solution.converged or (solution.gap is not None and solution.gap < _NEAR)):
                return name, solution
        return None

    @property
    def known(self) -> dict[str, Solution]:
        """What was computed beside the null model, by its name."""
        found = {"mle": self.mle, "map": self.map, "ridge": self.ridge}
        return {name: solution for name, solution in found.items() if solution is not None}


class Yardstick:
    """The exact estimates on the rows of a run, evaluated once: what each epoch and the end are measured by.

    Attributes:
        null: the null model.
        lines: mean NLL by estimate that exists and split.
        gained: NLL of the null model minus that of the reference, and the paired standard error, by split.
        optimum: what training would reach with a linear model, where it exists and is certified.
        reference: what gaps are measured from, as a model.
    """

    def __init__(self, exact: Exact, objective: Objective, splits: dict[str, Rows]) -> None:
        self.exact, self.gained = exact, dict[str, tuple[float, float]]()
        found = exact.optimum
        self.optimum = found if found is not None and found.may_exist and found.converged else None
        self.measure = None if self.optimum is None else distance.parameter_measure(objective, self.optimum)
        objectives = {
            name: as_objective(solution, objective)
            for name, solution in {"null": exact.null, **exact.known}.items()
            if solution.may_exist or name == "null"
        }
        self.null = objectives["null"]
        self.lines: dict[str, dict[str, float]] = {name: {} for name in objectives}
        self.reference = None if exact.reference is None else objectives[exact.reference[0]]
        self._at_reference: dict[str, Evaluation] = {}
        for split, rows in splits.items():
            evaluations = {name: evaluate(exact_objective, rows) for name, exact_objective in objectives.items()}
            for name, evaluation in evaluations.items():
                if abs(value := evaluation.mean(rows)) < float("inf"):
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


def describe(solution: Solution | None, line: dict[str, float] | None) -> Json | None:
    """An exact estimate as `summary.json` has it."""
    if solution is None:
        return None
    content: Json = {"exists": solution.exists}
    if not solution.may_exist:
        content["reason"] = solution.reason
        if solution.infimum is not None:
            content["nll_infimum"] = solution.infimum
        return content
    content |= {"converged": solution.converged, "solver": solution.solver}
    content |= {"residual": solution.residual} if abs(solution.residual) < float("inf") else {}
    content |= {"is_global": solution.is_global}
    content |= {"excess_bound": solution.gap} if solution.matrix_free and solution.gap is not None else {}
    content |= {split: {"nll_nats": value} for split, value in (line or {}).items()}
    return content
