"""The exact estimates that a run is compared with, during training and at its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.baseline.ngram.ngram import Ngram
from mlefw.objective.objective import Evaluation, Objective
from mlefw.rows.clustered import Units
from mlefw.rows.rows import Rows
from mlefw.score.exact_model import ExactModel, evaluate_exact, model_of, of_absent
from mlefw.system.atomic import Json

_MAX_KEPT_ROWS = 100_000
"""Splits of at most so many rows keep the evaluation of the reference in memory; of larger ones it is repeated."""

_SMALL_GAP = 1e-3
"""Nats per row: an estimate whose solver did not converge is still a reference where its excess is below this."""


Estimate = Solution | NgramEstimate
"""The exact estimate of a linear problem, or a table of the next token."""


@dataclass(frozen=True)
class ExactEstimates:
    """The exact estimates of a run.

    Attributes:
        null: MLE of the null model, which has intercepts alone.
        mle: MLE of the linear model.
        map: MAP estimate of the linear model, where the run has a prior.
        ridge: MAP estimate of the linear model under a normal prior, where neither `mle` nor `map` can be compared
            with; it exists for separated classes, too.
        optimum: what training would reach with a linear model: the MLE without a prior, else the MAP; None where the
            estimates use a part of the features only.
        seconds: time that the estimates took.
        left_out: for each estimate that was not computed, by name, the reason.
        longer: table of a text by more than one token of context, or of pixels by the most nearest ones.
        further: further tables of pixels, by name.
        null_table: the null model of a text or of pixels as a table without context.
        replaced: for each estimate of arrays that was computed of other features than those asked for, by name, the
            reason and the features.
        least: the infimum of the objective of a linear model of tokens, where no logits have to attain it.
    """

    null: Solution
    mle: Estimate | None = None
    map: Estimate | None = None
    ridge: Solution | None = None
    optimum: Solution | None = None
    seconds: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    longer: NgramEstimate | None = None
    further: Mapping[str, NgramEstimate] = field(default_factory=dict)
    null_table: Ngram | None = None
    least: float | None = None

    def null_nll(self, rows: Rows) -> float:
        """The mean NLL of the null model on rows, in nats per observation; only for tables of tokens."""
        return self.null.objective if self.null_table is None else evaluate_exact(self.null_table, rows).mean(rows)

    @property
    def is_requested(self) -> bool:
        """Whether other estimates than the null model were requested; `baseline=none` requests none."""
        return bool(self.solutions or self.left_out)

    @property
    def reference(self) -> tuple[str, Estimate] | None:
        """Name and solution of the estimate that gaps are measured from: the first usable of MLE, MAP and ridge MAP."""
        for name, solution in self.solutions.items():
            is_certain = solution.converged or (solution.gap is not None and solution.gap < _SMALL_GAP)
            if name in ("mle", "map", "ridge") and solution.may_exist and is_certain:
                return name, solution
        return None

    @property
    def solutions(self) -> dict[str, Estimate]:
        """The estimates that were computed, without the null model, by name."""
        linear = {"mle": self.mle, "map": self.map, "ridge": self.ridge}
        found: dict[str, Estimate | None] = {**linear, **self.further, "longer": self.longer}
        return {name: solution for name, solution in found.items() if solution is not None}


class Yardstick:
    """The exact estimates evaluated on the rows of a run, with which each epoch and the final model are compared.

    Args:
        exact: the estimates.
        objective: the objective of the run, whose head and prior the estimates share.
        splits: rows by split.
        units: the units of standard errors by split, where they are not the rows.

    Attributes:
        exact: the estimates.
        units: the units of standard errors by split, where they are not the rows.
        null: the null model.
        reference: the model of the estimate from which gaps are measured; None where there is none.
        optimum: the estimate that training would reach with a linear model; None unless it exists and is certified.
        least: the least value, or infimum, of the objective that training would reach with a linear model; None where
            `optimum` is, but for a linear model of tokens, which has no `optimum`.
        measure: gives the distances between an objective's parameters and `optimum`; None where that is not defined.
        mean_nll: mean NLL in nats per row, by name of the estimate and by split; only finite ones.
        absent: by split, figures of the table of an MLE that does not exist (see `of_absent`).
        null_gap: by split, mean NLL of the null model minus that of the reference, and its paired standard error.
    """

    def __init__(
        self,
        exact: ExactEstimates,
        objective: Objective,
        splits: dict[str, Rows],
        units: Mapping[str, Units] | None = None,
    ) -> None:
        self.exact, self.null_gap = exact, dict[str, tuple[float, float]]()
        self.units = units or {}
        optimum = exact.optimum
        self.optimum = optimum if optimum is not None and optimum.may_exist and optimum.converged else None
        self.measure = None if self.optimum is None else distance.parameter_measure(objective, self.optimum)
        self.least = exact.least if self.optimum is None else self.optimum.objective
        models: dict[str, ExactModel] = {"null": exact.null_table or model_of(exact.null, objective)}
        models |= {name: model_of(found, objective) for name, found in exact.solutions.items() if found.may_exist}
        self.null = models["null"]
        self.mean_nll: dict[str, dict[str, float]] = {name: {} for name in models}
        self.absent = {split: of_absent(exact.mle, rows) for split, rows in splits.items()}
        self.reference = None if exact.reference is None else models[exact.reference[0]]
        self._at_reference: dict[str, Evaluation] = {}
        for split, rows in splits.items():
            evaluations = {name: evaluate_exact(model, rows) for name, model in models.items()}
            for name, evaluation in evaluations.items():
                if abs(value := evaluation.mean(rows)) < float("inf"):
                    self.mean_nll[name][split] = value
            if exact.reference is not None:
                pair = evaluations["null"], evaluations[exact.reference[0]]
                self.null_gap[split] = distance.gap(*pair, rows, self.unit(split))
                if rows.num_rows <= _MAX_KEPT_ROWS:
                    self._at_reference[split] = evaluations[exact.reference[0]]

    def unit(self, split: str) -> Tensor | None:
        """The unit of each row of a split, (n,), over which standard errors are taken; None where each row is one."""
        return self.units[split].of_row if split in self.units else None

    def at_reference(self, split: str, rows: Rows) -> Evaluation:
        """The reference evaluated on `rows`, which are those of the split."""
        assert self.reference is not None
        return self._at_reference.get(split) or evaluate_exact(self.reference, rows)

    def epoch(self, split: str, figures: Mapping[str, float], objective: Objective) -> dict[str, float]:
        """Figures of one epoch relative to the exact estimates; only finite ones.

        They are `gap_nats`, `skill`, and on the training rows of a linear model `excess_objective` and the distances of
        the parameters from the optimum.

        Args:
            split: name of the split.
            figures: the epoch's `nll_nats` and `objective` on the split.
            objective: the model after the epoch.
        """
        values: dict[str, float] = {}
        if self.exact.reference is not None and split in self.mean_nll[self.exact.reference[0]]:
            gap = figures["nll_nats"] - self.mean_nll[self.exact.reference[0]][split]
            skill = distance.skill(gap, 0.0, *self.null_gap[split])
            values |= {"gap_nats": gap} | ({} if skill is None else {"skill": skill})
        if split == "train" and self.least is not None and (self.measure is not None or self.optimum is None):
            values["excess_objective"] = figures["objective"] - self.least
        if split == "train" and self.measure is not None:
            values |= {f"parameter_{name}": value for name, value in self.measure(objective).items()}
        return {name: value for name, value in values.items() if abs(value) < float("inf")}


def describe(
    solution: Estimate | None, mean_nll: dict[str, float] | None, absent: Mapping[str, Json] | None = None
) -> Json | None:
    """The entry of an exact estimate in `summary.json`.

    Args:
        solution: the estimate.
        mean_nll: its mean NLL by split, in nats per row.
        absent: of a table that does not exist, its figures by split.
    """
    if solution is None:
        return None
    content: Json = {"exists": solution.exists}
    if isinstance(solution, NgramEstimate):
        content |= solution.facts()
    elif solution.problem.features is not None:
        content["features"] = solution.problem.features.words
    if not solution.may_exist:
        content["reason"] = solution.reason
        if solution.infimum is not None:
            content["nll_infimum"] = solution.infimum
        return content | {split: some for split, some in (absent or {}).items() if some}
    content |= {"converged": solution.converged, "solver": solution.solver}
    content |= {"residual": solution.residual} if abs(solution.residual) < float("inf") else {}
    content |= {"is_global": solution.is_global}
    content |= {"excess_bound": solution.gap} if solution.matrix_free and solution.gap is not None else {}
    content |= {split: {"nll_nats": value} for split, value in (mean_nll or {}).items()}
    return content
