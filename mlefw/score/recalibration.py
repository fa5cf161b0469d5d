"""Recalibration of a trained model: check beforehand, fit after training, describe in `summary.json`."""

from collections.abc import Mapping

import torch

from mlefw.calibrate.base import CalibratedHead, Calibration
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.multitask import JointHead
from mlefw.objective.objective import Evaluation, Objective, whole_eta
from mlefw.rows.rows import Rows
from mlefw.system.atomic import Json

FITTED_ON = "validation"
"""The split to fit on: test rows have to stay unseen, and on training rows the model looks too well calibrated."""


@torch.no_grad()
def check(calibration: Calibration, method: str, head: Head, splits: Mapping[str, Rows]) -> None:
    """Check, before training, that a recalibration suits the head and the rows of a run.

    Args:
        calibration: the recalibration.
        method: its name, as in `calibrate=`.
        head: the head of the run.
        splits: rows by split.

    Raises:
        UsageError: the recalibration is for another kind of distribution or for one target, or there are too few
            validation rows.
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
    """The objective with a head that recalibrates its predictions, in evaluation mode; the model is shared."""
    head = CalibratedHead(objective.head, calibration)
    return Objective(objective.model, head, objective.prior, objective.population).eval()


@torch.no_grad()
def fit(objective: Objective, calibration: Calibration, evaluation: Evaluation, rows: Rows) -> Objective:
    """Fit the recalibration to evaluated rows, in place, and return the recalibrated model."""
    eta = whole_eta(objective, rows) if evaluation.eta is None else evaluation.eta
    eta, y, weight = objective.observations(rows, eta)
    calibration.fit(objective.head(eta), y, weight)
    return recalibrated(objective, calibration)


def describe(
    method: str,
    calibration: Calibration,
    before: Mapping[str, Evaluation],
    after: Mapping[str, Evaluation],
    splits: Mapping[str, Rows],
) -> Json:
    """The entry of a recalibration in `summary.json`, with the mean NLL of each split before and after it."""
    known = {"before": before, "after": after}
    lines: Json = {
        key: {split: figures for split, rows in splits.items() if (figures := nll_figure(evaluations[split], rows))}
        for key, evaluations in known.items()
    }
    return {"method": method, "fitted_on": FITTED_ON, "parameters": calibration.figures(), **lines}


def nll_figure(evaluation: Evaluation, rows: Rows) -> dict[str, float]:
    """The mean NLL of evaluated rows, in nats, under its name; empty where it is not finite."""
    value = evaluation.mean(rows)
    return {"nll_nats": value} if abs(value) < float("inf") else {}
