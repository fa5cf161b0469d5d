"""The end of a run: final figures, distances from the exact estimates, pictures, and the summary."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlefw.configuration.settings import Settings
from mlefw.objective.objective import Evaluation, Objective, evaluate, whole_eta
from mlefw.report.forecast import Sample, forecast
from mlefw.rows.rows import Rows
from mlefw.run import (
    archive,
    build,
    exact_checkpoint,
    exhibit,
    exhibit_arrays,
    exhibit_explanation,
    exhibit_terms,
    fitting,
    judgement,
    row_scores,
)
from mlefw.run.checkpoint import Trained
from mlefw.run.directory import checkpoint_of
from mlefw.run.essentials import essentials
from mlefw.run.final_board import finish_board
from mlefw.run.last_layer import at_end
from mlefw.run.posterior import keep_posterior
from mlefw.run.prepare import Prepared
from mlefw.run.units import independent_units, over_units
from mlefw.schema.schema import Schema
from mlefw.score import recalibration
from mlefw.score.distances import distances
from mlefw.score.figures import figures_on, floored_share
from mlefw.score.yardstick import Yardstick
from mlefw.system.atomic import Json, write_json
from mlefw.system.attempt import attempt
from mlefw.system.warning import collect, collected, warn

Splits = Mapping[str, Rows]

_FLOOR_SHARE = 0.01
"""Share of training rows with their scale at its floor, from which on there is a warning."""

_UNFINISHED = "the run ended while its last figures were computed: the model and the figures that are here are valid"


@dataclass(frozen=True)
class FinalState:
    """The evaluation of a trained model on the rows of each split, and its figures; both by split."""

    evaluations: dict[str, Evaluation]
    figures: dict[str, dict[str, float]]


def evaluated(
    config: Settings, prepared: Prepared, objective: Objective, evaluations: dict[str, Evaluation]
) -> FinalState:
    """Evaluations of an objective by split, with the figures computed from them."""
    metrics = build.build_metrics(config, objective.head, prepared.estimand.token_bytes)
    splits = prepared.data.splits
    figures = {split: figures_on(objective, evaluations[split], rows, metrics) for split, rows in splits.items()}
    return FinalState(evaluations, figures)


def conclude(
    config: Settings,
    run_dir: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    baseline: Json | None,
    fit: fitting.Fit,
    started: float,
    seen: FinalState | None = None,
) -> Json:
    """Recalibrate, evaluate, and write all files of a run whose training is done; the summary.

    Args:
        config: the settings of the run.
        run_dir: its directory.
        prepared: its rows and the objective, with the weights that are kept.
        yardstick: the exact estimates on the rows of each split.
        baseline: content of `baseline.json`; None where there is none.
        fit: what training has left.
        started: when the run began, in seconds of `time.monotonic`.
        seen: evaluations before a recalibration, where they are known.
    """
    data, objective = prepared.data, prepared.estimand.objective.eval()
    yardstick = attempt("the estimates of the last layer", partial(at_end, config, prepared, yardstick), yardstick)
    _warn_of_first_epoch(fit, objective, data.splits)
    before = seen.evaluations if seen else {split: evaluate(objective, rows) for split, rows in data.splits.items()}
    final, evaluations, calibration = attempt(
        "the recalibration", lambda: _recalibrate(config, run_dir, prepared, before), (objective, before, None)
    )
    if seen is None or calibration is not None:
        seen = evaluated(config, prepared, final, evaluations)
    shape = data.schema.row_shape
    seen = replace(seen, figures=over_units(seen.figures, seen.evaluations, data.splits, data.units, shape))
    attempt("the share of rows at the floor", lambda: _warn_of_floor(objective, before["train"], data.train), None)
    is_fold = bool(config.cv) and yardstick.reference is not None
    baseline_nll = yardstick.at_reference("test", data.splits["test"]).nll if is_fold else None
    row_scores.store(run_dir, evaluations, data.splits, data.schema.labels, baseline_nll, data.units)
    summary = _essentials(config, prepared, yardstick, fit, seen, final, calibration)
    summary["time"]["total_s"] = time.monotonic() - started
    figures = seen.figures
    units = independent_units(data.splits, data.units, shape)
    of_density = recalibration.of_density(figures, calibration)
    judged = partial(judgement.judge, config, final, data.splits, of_density, shape.observation, units)
    misfit = attempt("the judgement of calibration", judged, None)
    if misfit is not None:
        # Not on the terminal: the verdict, which is printed there, says it.
        collect(misfit["sentence"])
        summary["misfit"] = misfit
    # What follows may take long, or run out of memory: what is known by now is written first.
    write_summary(config, run_dir, {**summary, "status": "failed", "reason": _UNFINISHED}, baseline, [])
    kept = partial(
        exact_checkpoint.keep, checkpoint_of(run_dir), yardstick.exact, objective, config.baseline, data.dependence
    )
    attempt("the exact estimates of the checkpoint", kept, None)
    summary |= attempt(
        "the uncertainty of the parameters", lambda: keep_posterior(config, run_dir, objective, data.splits), {}
    )
    summary["distance"] = distances(objective, before, data.splits, yardstick, (final, evaluations))
    if shape.positions:
        make = partial(exhibit_arrays.by_position, final, seen.evaluations, data, yardstick)
        summary |= attempt("the NLL by position", make, {})
    clock = time.monotonic()
    pictures = _show(config, run_dir, prepared, yardstick, fit, summary, final, seen.evaluations)
    summary["time"]["pictures_s"] = time.monotonic() - clock
    trained = Trained(final, data.schema, config, checkpoint_of(run_dir))
    pictures += exhibit_explanation.sections(config, run_dir, trained, exhibit_arrays.shown_split(data.splits))
    summary["time"]["total_s"] = time.monotonic() - started
    return write_summary(config, run_dir, summary, baseline, pictures)


def _warn_of_first_epoch(fit: fitting.Fit, objective: Objective, splits: Splits) -> None:
    best, prior = fit.keeper.best_epoch, ", a prior" if objective.prior.flat else ""
    if best <= 0 and fit.trainer.current_epoch > 10 and "validation" in splits:
        when = "before training" if best < 0 else "after the first epoch"
        warn(
            f"the validation NLL was least {when}: the model extrapolates badly, or the learning rate is too large "
            f"(try a smaller optimizer.lr{prior}, or transformed features)"
        )


def _warn_of_floor(objective: Objective, evaluation: Evaluation, train: Rows) -> None:
    share = floored_share(objective, evaluation, train)
    if share >= _FLOOR_SHARE:
        warn(
            f"the floor of the scale (scale_floor of the head) holds {100 * share:.3g} % of the training rows: the "
            "network cannot predict a smaller scale, while the exact estimates have no floor. Expected a smaller "
            "head.scale_floor, if a scale below it is plausible"
        )


def _essentials(
    config: Settings,
    prepared: Prepared,
    yardstick: Yardstick,
    fit: fitting.Fit,
    seen: FinalState,
    final: Objective,
    calibration: Json | None,
) -> Json:
    """The summary of a run without what is computed later: misfit, uncertainty and distances."""
    trainer = fit.trainer
    summary = essentials(config, prepared, yardstick, seen.figures, final.head) | {
        "calibration": calibration,
        "time": {"fit_s": fit.seconds, "baseline_s": yardstick.exact.seconds, "rows_per_s": fit.rows_per_s},
        "best_epoch": fit.keeper.best_epoch,
        "num_epochs": trainer.current_epoch,
        "num_steps": trainer.global_step,
        "warnings": collected(),
    }
    return {name: value for name, value in summary.items() if value is not None}


def write_summary(
    config: Settings,
    run_dir: Path,
    summary: Json,
    baseline: Json | None,
    pictures: Sequence[exhibit.Exhibit],
) -> Json:
    """Write the report, if the settings ask for one, and the summary; the summary with all warnings."""
    summary = {**summary, "warnings": collected()}
    if config.report:
        attempt("the report", lambda: exhibit.report(run_dir, summary, baseline, pictures), None)
    summary["warnings"] = collected()
    write_json(run_dir / "summary.json", summary)
    return summary


def _show(
    config: Settings,
    run_dir: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    fit: fitting.Fit,
    summary: Json,
    final: Objective,
    evaluations: Mapping[str, Evaluation],
) -> list[exhibit.Exhibit]:
    """Draw the pictures, write them, and finish TensorBoard's log with them."""
    sample = fit.board.sample if "calibration" not in summary else _unseen(prepared.data)
    seen, pictures = None, list[exhibit.Exhibit]()
    if config.plots:
        pictures += exhibit.of_training(fit, summary, prepared.data.schema, with_path=config.report)
    if config.plots and config.report:
        seen = attempt(
            "the predictive distributions of a sample",
            lambda: forecast(final, whole_eta(final, sample.rows), sample.rows),
            None,
        )
    if seen is not None:
        figures, known = summary["metrics"][sample.split], seen
        pictures += attempt(
            "pictures of the predictive distributions", lambda: exhibit.predictive(sample, known, figures), []
        )
    if config.plots and config.report and not prepared.data.schema.row_shape.is_table:
        of_arrays = partial(exhibit.of_arrays, final, evaluations, prepared.data, summary)
        pictures += attempt("pictures of classes, positions and the hardest rows", of_arrays, [])
    if config.plots and config.report and isinstance(prepared.data.schema, Schema):
        pictures += attempt("pictures of the terms", partial(_terms, config, prepared, yardstick), [])
    if pictures:
        exhibit.store(run_dir / "plots", pictures)
    # TensorBoard compares a sample over epochs; after a recalibration the sample is another one.
    seen = seen if sample is fit.board.sample else None
    attempt("the last page of TensorBoard", lambda: finish_board(config, prepared, fit, summary, pictures, seen), None)
    return pictures


def _terms(config: Settings, prepared: Prepared, yardstick: Yardstick) -> list[exhibit.Exhibit]:
    """Pictures of the terms of formulas in the exact estimate, and beside them in the model; none without formulas."""
    objective, exact, data = prepared.estimand.objective, yardstick.exact, prepared.data
    solution = exact.mle if objective.prior.flat else exact.map
    kind = config.baseline.get("standard_errors", "default")
    dependence = replace(data.dependence, lag=config.baseline.get("lag"))
    return [*exhibit_terms.of_terms(solution, data.schema, kind, dependence, objective)]


def _recalibrate(
    config: Settings, run_dir: Path, prepared: Prepared, before: dict[str, Evaluation]
) -> tuple[Objective, dict[str, Evaluation], Json | None]:
    """Fit the recalibration, and add it to `best.ckpt`.

    Returns:
        The recalibrated objective, its evaluations by split, and `calibration` of the summary; without a recalibration
        the objective and evaluations as they were, and None.
    """
    objective, calibration, splits = prepared.estimand.objective, prepared.calibration, prepared.data.splits
    if calibration is None:
        return objective, before, None
    held = recalibration.FITTED_ON
    final = recalibration.fit(objective, calibration, before[held], splits[held])
    after = {split: evaluate(final, rows) for split, rows in splits.items()}
    archive.amend(run_dir / "checkpoints" / "best.ckpt", calibration=dict(calibration.state_dict()))
    measure = recalibration.interval_figures
    intervals = {
        "before": {split: measure(objective, before[split], rows, calibration) for split, rows in splits.items()},
        "after": {split: measure(final, after[split], rows, calibration) for split, rows in splits.items()},
    }
    method = config.choice("calibrate")
    return final, after, recalibration.describe(method, calibration, before, after, splits, intervals)


def _unseen(data: build.Data) -> Sample:
    """A sample of rows for pictures after a recalibration: of the test rows, else of those that it was fitted on."""
    held = "test" if "test" in data.splits else recalibration.FITTED_ON
    schema = data.schema
    sample = Sample.of({held: data.splits[held]}, schema.target, schema.labels, schema.row_shape, data.units)
    note = "" if held == "test" else ", recalibrated on them"
    return replace(sample, description=sample.description.replace(")", f"{note})"))
