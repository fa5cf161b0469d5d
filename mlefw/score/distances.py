"""Distances of a trained model from the exact estimates, as `summary.json` holds them.

A figure that cannot be computed is left out with a warning; the others are computed all the same.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch

from mlefw.baseline import distance
from mlefw.baseline.refit import head_refit_gap
from mlefw.objective.objective import Evaluation, Objective
from mlefw.rows.rows import Rows
from mlefw.score.exact_model import evaluate_exact
from mlefw.score.yardstick import Yardstick
from mlefw.system.atomic import Json
from mlefw.system.attempt import attempt


@torch.no_grad()
def distances(
    objective: Objective,
    evaluations: dict[str, Evaluation],
    splits: dict[str, Rows],
    yardstick: Yardstick,
    final: tuple[Objective, dict[str, Evaluation]] | None = None,
) -> Json:
    """The entry `distance` of `summary.json`.

    It holds gaps in nats per row, skill, divergence of the predictions, distance of parameters, excess of the objective
    and the gain of an exact refit of the last layer.

    Args:
        objective: the objective that training descended.
        evaluations: the objective on each split.
        splits: rows by split.
        yardstick: the exact estimates on the same splits.
        final: the recalibrated model and its evaluations, where a recalibration followed the training. Gaps, skill and
            divergence are then those of this model, the other figures still those of `objective`.
    """
    content: Json = {}
    if yardstick.least is not None and _is_comparable(objective):
        content |= attempt(
            "the distance from the exact optimum", lambda: _excess(objective, evaluations, splits, yardstick), {}
        )
    refit = None
    if yardstick.exact.is_requested:
        refit = attempt("the exact refit of the last layer", lambda: head_refit_gap(objective, splits["train"]), None)
    content |= {} if refit is None else {"head_refit_gap": refit}
    predicts, evaluations = final or (objective, evaluations)
    content |= gaps(evaluations, splits, yardstick)
    if not isinstance(yardstick.reference, Objective):
        return content
    divergence = attempt(
        "the divergence from the exact estimate",
        lambda: _divergence(predicts, evaluations["train"], splits["train"], yardstick),
        None,
    )
    return content | ({} if divergence is None else {"predictive_kl": {"train": divergence}})


@torch.no_grad()
def gaps(evaluations: Mapping[str, Evaluation], splits: Mapping[str, Rows], yardstick: Yardstick) -> Json:
    """The part of `distance` in `summary.json` that the NLL of each row determines: gaps in nats per row, and skill."""
    content: Json = {}
    reference = yardstick.exact.reference
    if reference is None or reference[0] != "mle":
        content |= _null_gaps(evaluations, splits, yardstick)
    if yardstick.reference is None or reference is None:
        return content
    content["reference"] = reference[0]
    content |= {"gap_nats": {}, "gap_se": {}, "skill": {}}
    for split, rows in splits.items():
        found = attempt(f"the gap on {split}", partial(_gap, split, rows, evaluations, yardstick), {})
        for key, value in found.items():
            content.setdefault(key, {})[split] = value
    return content


def _excess(
    objective: Objective, evaluations: Mapping[str, Evaluation], splits: Mapping[str, Rows], yardstick: Yardstick
) -> Json:
    """How far a linear model is from the optimum of its objective: excess in nats per row, distance of parameters."""
    assert yardstick.least is not None
    value = evaluations["train"].mean(splits["train"]) + float(objective.penalty()) / objective.population
    content: Json = {"excess_objective": value - yardstick.least}
    if yardstick.measure is not None and yardstick.optimum is not None:
        content["parameter"] = Json(yardstick.measure(objective))
        if objective.prior.flat:
            inside = distance.inside_95_region(yardstick.optimum, content["excess_objective"])
            content["parameter"]["inside_95_region"] = inside
    return content


def _gap(split: str, rows: Rows, evaluations: Mapping[str, Evaluation], yardstick: Yardstick) -> Json:
    """Gap to the exact estimate on a split, its paired standard error, skill, and the few rows that decide the gap.

    Figures that are not finite are left out.
    """
    difference = distance.differences(evaluations[split], yardstick.at_reference(split, rows), rows)
    weight, clustered, unit = rows.row_weight, bool(rows.positions), yardstick.unit(split)
    mean, error = distance.paired(difference, weight, clustered, unit)
    values = {"gap_nats": mean, "gap_se": error, "skill": distance.skill(mean, 0.0, *yardstick.null_gap[split])}
    found: Json = {key: v for key, v in values.items() if v is not None and abs(v) < float("inf")}
    few = distance.decisive(difference, weight, clustered, unit)
    if few is not None and max(abs(few.mean), few.error) < float("inf"):
        found["decisive"] = few._asdict()
    return found


def _null_gaps(evaluations: Mapping[str, Evaluation], splits: Mapping[str, Rows], yardstick: Yardstick) -> Json:
    """Mean NLL minus that of the null model, in nats per row, and its paired standard error, by split."""
    content: dict[str, dict[str, float]] = {"null_gap_nats": {}, "null_gap_se": {}}
    for split, rows in splits.items():
        null, unit = partial(evaluate_exact, yardstick.null, rows), yardstick.unit(split)
        pair = partial(_pair, evaluations[split], null, rows, unit)
        found = attempt(f"the gap to the null model on {split}", pair, ())
        for key, value in zip(content, found, strict=False):
            if abs(value) < float("inf"):
                content[key][split] = value
    return {key: values for key, values in content.items() if values}


def _pair(
    evaluation: Evaluation, null: Callable[[], Evaluation], rows: Rows, unit: torch.Tensor | None
) -> tuple[float, ...]:
    return distance.gap(evaluation, null(), rows, unit)


def _divergence(predicts: Objective, evaluation: Evaluation, rows: Rows, yardstick: Yardstick) -> float | None:
    assert isinstance(yardstick.reference, Objective)
    at_exact = yardstick.at_reference("train", rows).eta
    return distance.predictive_kl((predicts, evaluation.eta), (yardstick.reference, at_exact), rows)


def _is_comparable(objective: Objective) -> bool:
    """Whether the exact optimum is that of this objective: a prior must not leave frozen weights out of the penalty."""
    return objective.prior.flat or all(p.requires_grad for p in objective.model.parameters())
