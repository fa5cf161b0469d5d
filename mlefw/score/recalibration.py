"""The step after training that recalibrates what the model predicts: check, fit, describe."""

from collections.abc import Mapping

import torch

from mlefw.calibrate.base import CalibratedHead, Calibration
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.multitask import JointHead
from mlefw.objective.objective import Evaluation, Objective, whole_eta
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.system.atomic import Json

FITTED_ON = "validation"
"""The split that a recalibration is fitted on: test rows stay unseen, and those of training are fitted already."""


@torch.no_grad()
def check(calibration: Calibration, method: str, head: Head, splits: Mapping[str, Rows]) -> None:
    """Hold a recalibration to the head and the rows of a run, before anything is trained.

    Raises:
        UsageError: the head predicts another kind of distribution, or there are too few validation rows.
    """
    if isinstance(head, JointHead):
        raise UsageError(f"calibrate={method} is for one target, and there are {len(head.targets)}: expected none")
    distribution = head(head.center.new_zeros(1, head.eta_dim))
    if not calibration.fits(distribution):
        kind = type(distribution).__name__
        raise UsageError(f"calibrate={method}: the head predicts a {kind}, and this is for {calibration.takes}")
    rows = splits.get(FITTED_ON)
    count = 0.0 if rows is None else rows.population
    if count <= 0:
        raise UsageError(
            f"calibrate={method} is fitted on validation rows, and there are none: expected "
            "data.validation_fraction > 0 or data.validation_path"
        )
    if count < calibration.min_rows:
        raise UsageError(
            f"calibrate={method} needs at least {calibration.min_rows} validation rows, there are {count:g}: "
            "expected another calibrate=, or more rows (data.validation_fraction)"
        )


def recalibrated(objective: Objective, calibration: Calibration) -> Objective:
    """The same model with its predictions recalibrated, in evaluation mode."""
    head = CalibratedHead(objective.head, calibration)
    return Objective(objective.model, head, objective.prior, objective.population).eval()


@torch.no_grad()
def fit(objective: Objective, calibration: Calibration, evaluation: Evaluation, rows: Rows) -> Objective:
    """Fit the recalibration to evaluated rows; the recalibrated model."""
    eta = whole_eta(objective, rows) if evaluation.eta is None else evaluation.eta
    calibration.fit(objective.head(eta), rows.y, rows.weight)
    return recalibrated(objective, calibration)


def describe(
    method: str,
    calibration: Calibration,
    before: Mapping[str, Evaluation],
    after: Mapping[str, Evaluation],
    splits: Mapping[str, Rows],
) -> Json:
    """The recalibration as `summary.json` has it, with the NLL of each split before and after."""
    known = {"before": before, "after": after}
    lines: Json = {
        key: {split: figures for split, rows in splits.items() if (figures := nll(evaluations[split], rows))}
        for key, evaluations in known.items()
    }
    return {"method": method, "fitted_on": FITTED_ON, "parameters": calibration.figures(), **lines}


def nll(evaluation: Evaluation, rows: Rows) -> dict[str, float]:
    """The mean NLL of evaluated rows, where it is finite."""
    value = float(weighted_sum(rows.weight, evaluation.nll) / rows.weight.sum())
    return {"nll_nats": value} if abs(value) < float("inf") else {}
