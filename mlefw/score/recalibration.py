"""Recalibration of a trained model: check beforehand, fit after training, describe in `summary.json`."""

from collections.abc import Mapping

import torch

from mlefw.calibrate.base import CalibratedHead, Calibration
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.multitask import JointHead
from mlefw.metric.base import Metric, OfTrials
from mlefw.metric.coverage import Coverage
from mlefw.objective.objective import Evaluation, Objective, etas, whole_eta
from mlefw.rows.rows import Rows
from mlefw.score.figures import StreamedFigures
from mlefw.system.atomic import Json
from mlefw.system.warning import warn

FITTED_ON = "validation"
"""The split to fit on: test rows have to stay unseen, and on training rows the model looks too well calibrated."""

_UNLIKE = {"group": "other groups", "time": "later times"}
"""Rows that are not exchangeable with the validation rows, by the rule of `data.split`."""


@torch.no_grad()
def check(calibration: Calibration, method: str, head: Head, splits: Mapping[str, Rows], rule: str = "random") -> None:
    """Check, before training, that a recalibration suits the head and the rows of a run.

    Args:
        calibration: the recalibration.
        method: its name, as in `calibrate=`.
        head: the head of the run.
        splits: rows by split.
        rule: by which rows were shared out to the splits, as `data.split`.

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
    assert rows is not None
    calibration.check_rows(rows.weight)
    if not calibration.changes_density and rule in _UNLIKE:
        warn(
            f"calibrate={method} promises its coverage for rows that are exchangeable with the validation rows, which "
            f"those of {_UNLIKE[rule]} are not (data.split={rule})"
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
    intervals: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> Json:
    """The entry of a recalibration in `summary.json`, with the mean NLL of each split before and after it.

    Args:
        method: name of the recalibration.
        calibration: the recalibration.
        before: evaluations before it, by split.
        after: evaluations after it, by split.
        splits: rows by split.
        intervals: figures of `of_intervals` of the metric, `before` and `after`, by split; None for none.
    """
    known = {"before": before, "after": after}
    lines: Json = {
        key: {
            split: figures
            for split, rows in splits.items()
            if (figures := nll_figure(evaluations[split], rows) | dict((intervals or {}).get(key, {}).get(split, {})))
        }
        for key, evaluations in known.items()
    }
    return {**fitted(method, calibration), **lines}


def fitted(method: str, calibration: Calibration) -> Json:
    """What a recalibration is, where it was fitted, its figures, and whether it leaves the density as it is."""
    kept = {} if calibration.changes_density else {"keeps_density": True}
    return {"method": method, "fitted_on": FITTED_ON, "parameters": calibration.figures(), **kept}


def interval_metrics(calibration: Calibration) -> list[Metric]:
    """Metrics that are computed before and after a recalibration of intervals alone; none for any other."""
    return [] if calibration.changes_density else [Coverage()]


@torch.no_grad()
def interval_figures(objective: Objective, evaluation: Evaluation, rows: Rows, calibration: Calibration) -> Json:
    """Shares of rows in central intervals, and widths of these, under a model; empty where the density is mapped."""
    metrics = interval_metrics(calibration)
    if not metrics:
        return {}
    tally = StreamedFigures(objective, trials_aware(objective.head, metrics), max_cells=0)
    for part, eta in etas(objective, rows, evaluation.eta):
        tally.add_known(part, eta)
    return shown_intervals(tally.sums())


def trials_aware(head: Head, metrics: list[Metric]) -> list[Metric]:
    """The metrics, which of counts out of known trials get the count given the trials of its row."""
    return [OfTrials(metrics)] if metrics and head.takes_trials and head.event_shape else metrics


def shown_intervals(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of intervals that are finite: one without an end has no width. Tests of the density are left out."""
    known = ("coverage_", "width_", "interval_score_")
    chosen = {name: value for name, value in figures.items() if name.startswith(known) and not name.endswith("_z")}
    return {name: value for name, value in chosen.items() if abs(value) < float("inf")}


def of_density(figures: Mapping[str, Mapping[str, float]], described: Json | None) -> dict[str, dict[str, float]]:
    """Figures by split, of the density also where those of intervals are of recalibrated ones.

    Args:
        figures: all figures after a recalibration.
        described: its entry in `summary.json`; None without one.
    """
    before = described["before"] if described and "keeps_density" in described else {}
    return {split: {**known, **before.get(split, {})} for split, known in figures.items()}


def nll_figure(evaluation: Evaluation, rows: Rows) -> dict[str, float]:
    """The mean NLL of evaluated rows, in nats, under its name; empty where it is not finite."""
    value = evaluation.mean(rows)
    return {"nll_nats": value} if abs(value) < float("inf") else {}
