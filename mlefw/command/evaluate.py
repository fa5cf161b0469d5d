"""mlefw evaluate: score a trained run on data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlefw.command.predict import in_pieces, progress
from mlefw.configuration.settings import EvaluationSettings
from mlefw.errors import UsageError
from mlefw.metric.nll import Nll
from mlefw.reading.table import Table
from mlefw.report.forecast import Sample, forecast
from mlefw.report.references import EXACT
from mlefw.rows.rows import Rows
from mlefw.run import archive, build, exhibit, judgement, pooled
from mlefw.run.checkpoint import Trained
from mlefw.run.evaluated_arrays import of_new_arrays
from mlefw.run.new_data import adapted, check_folder, check_output, num_unseen, read_blocks
from mlefw.run.pooled import MemberTally, Pooled
from mlefw.run.posterior import AveragedTally, posterior_of
from mlefw.run.stored_estimates import ESTIMATES, EstimateTally
from mlefw.run.unit_scores import UnitScores
from mlefw.schema.reach import FarRows
from mlefw.schema.schema import Schema
from mlefw.schema.support import check_support
from mlefw.score import recalibration
from mlefw.score.figures import StreamedFigures
from mlefw.system.atomic import Json, write_json
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own
from mlefw.system.random_state import isolated
from mlefw.system.warning import warn


@isolated("evaluation")
def run(config: EvaluationSettings, plugins: tuple[str, ...] = ()) -> Json:
    """Evaluate a trained run on new rows, or on a split of its own; the content of the output file.

    Raises:
        UsageError: a mistake in settings, checkpoint or data, or no rows to evaluate.
    """
    _check(config)
    loaded = pooled.load(config.run, plugins, config.weights)
    for path in pooled.paths_of(config.run):
        mark_own(path)
    method = build.build_uncertainty(config.uncertainty)
    posterior = posterior_of(loaded, method, stored=True)
    trained = adapted(loaded, config.data.missing, config.data.unseen)
    members = MemberTally(trained) if isinstance(trained, Pooled) else None
    metrics = trained.metrics()
    tally, far = StreamedFigures(trained.objective, metrics), FarRows(trained.schema)
    before = _uncalibrated(trained)
    known = None if members else archive.read(trained.path).get(ESTIMATES)
    uncalibrated = trained.uncalibrated or trained.objective
    scores = UnitScores(trained)
    stored = (uncalibrated, trained.objective, trained.path, scores.tally.units)
    estimates = None if known is None else EstimateTally(known, *stored)
    averaged = None if posterior is None else AveragedTally(trained.objective, posterior, metrics)
    parts = [part for part in (tally, before, averaged, members) if part is not None]
    split = config.split or "test"
    if config.data.path is None:
        pooled.check_split(trained, split)
    unseen, arrays = 0, list[Rows]()
    read = read_blocks(trained, config.data, split, prediction=False)
    with progress(in_pieces(read, posterior), "scoring") as blocks:
        for block in (block for block in blocks if block.table.num_rows):
            rows = _checked_rows(trained, block.table)
            far.add(rows, block.table)
            for part in parts:
                part.add(rows)
            code = scores.codes(block.table)
            nll = scores.add(rows, code)
            if estimates is not None:
                estimates.add(rows, code, nll)
            unseen = num_unseen(rows)
            if config.plots and not trained.schema.row_shape.is_table:
                arrays.append(rows)
    far.warn()
    if not tally.population:
        what = "every weight is zero" if tally.num_rows else "0 data rows"
        raise UsageError(f"{config.data.path or trained.path}: {what}: there is nothing to score")
    content = _content(config, trained, tally, before, scores)
    content |= {} if estimates is None else estimates.figures()
    content |= {"num_unseen": unseen} if unseen else {}
    if members is not None:
        content["ensemble"] = members.figures(content["metrics"].get("nll_nats"))
    if averaged is not None:
        content |= {"uncertainty": averaged.posterior.name, averaged.posterior.name: _averaged(averaged, scores)}
    if config.output:
        write_json(local_path(config.output, "output"), content)
    if config.plots:
        more = of_new_arrays(trained, arrays, content, estimates)
        _draw(local_path(config.plots, "plots"), trained, tally, content, more)
    return content


def _check(config: EvaluationSettings) -> None:
    """Refuse settings before anything is read."""
    if not config.run:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    if config.output:
        check_output(local_path(config.output, "output"), config.overwrite)
    if config.plots:
        folder = local_path(config.plots, "plots")
        check_output(folder, config.overwrite, "plots")
        check_folder(folder, "plots")
    if config.split is not None and config.data.path is not None:
        raise UsageError("split= is for the run's own data; all rows of data.path are scored")


def _content(
    config: EvaluationSettings,
    trained: Trained,
    tally: StreamedFigures,
    before: StreamedFigures | None,
    scores: UnitScores,
) -> Json:
    """The figures in the form of the output file; `before` has those without the recalibration."""
    figures = scores.applied(tally.figures())
    if isinstance(trained, Pooled):
        # A mixture has neither weights nor a prior on them.
        figures = {name: value for name, value in figures.items() if name not in ("penalty", "objective")}
    content: Json = {"run": _run_name(trained), "num_rows": tally.num_rows, "metrics": figures}
    if not isinstance(trained.schema, Schema):
        content |= {"observation": trained.schema.row_shape.observation}
        content |= {"num_observations": tally.population, "nll_se_unit": scores.name}
    split = "new" if config.data.path is not None else config.split or "test"
    changed = _recalibration(trained, before, figures)
    content |= {} if changed is None else {"calibration": changed}
    if not isinstance(trained, Pooled):
        rows, shape = {split: tally.kept()[1]}, trained.schema.row_shape
        is_dependent = not shape.is_sequential and (shape.positions or scores.name != "rows")
        units = {split: scores.count or tally.num_rows} if is_dependent else {}
        of_density = recalibration.of_density(
            {split: figures}, changed and {**changed, "before": {split: changed["before"]}}
        )
        parts = (trained.config, trained.objective, rows, of_density, shape.observation, units)
        misfit = judgement.judge(*parts)
        content |= {} if misfit is None else {"misfit": misfit}
    if config.data.path is None:
        content["split"] = config.split or "test"
        folder = trained.path if isinstance(trained, Pooled) else local_path(config.run, "run")
        content |= _stored_estimates(folder, content)
    return content


def _recalibration(trained: Trained, before: StreamedFigures | None, figures: Mapping[str, float]) -> Json | None:
    """The entry of a recalibration, with figures before it and after it; None without one."""
    if trained.calibration is None or before is None:
        return None
    when = {"before": before.sums(), "after": figures}
    found = {name: {"nll_nats": some["nll_nats"]} if _has_finite_nll(some) else {} for name, some in when.items()}
    if not trained.calibration.changes_density:
        found = {name: found[name] | recalibration.shown_intervals(some) for name, some in when.items()}
    return {**recalibration.fitted(trained.config.choice("calibrate"), trained.calibration), **found}


def _uncalibrated(trained: Trained) -> StreamedFigures | None:
    """The NLL, and where only intervals are recalibrated the figures of intervals, without the recalibration."""
    if trained.uncalibrated is None or trained.calibration is None:
        return None
    more = recalibration.trials_aware(trained.objective.head, recalibration.interval_metrics(trained.calibration))
    return StreamedFigures(trained.uncalibrated, [Nll(), *more], max_cells=0)


def _averaged(averaged: AveragedTally, scores: UnitScores) -> dict[str, float]:
    """Figures of predictions averaged over parameters; without an error that takes rows in groups for independent."""
    return {name: v for name, v in averaged.figures().items() if name != "nll_se" or scores.name == "rows"}


def _run_name(trained: Trained) -> str:
    """The path of the run or ensemble, or the paths of several runs."""
    if not isinstance(trained, Pooled) or trained.path.is_dir():
        return str(trained.path)
    return ", ".join(str(member.path) for member in trained.members)


def _has_finite_nll(figures: Mapping[str, float]) -> bool:
    return abs(figures.get("nll_nats", math.inf)) < math.inf


def _checked_rows(trained: Trained, table: Table) -> Rows:
    """The coded rows of a table, with a target that the head can take."""
    schema, head = trained.schema, trained.objective.head
    rows = trained.rows(table, whole=False)
    check_support(head, rows, table, schema.target)
    return rows


def _draw(
    folder: Path, trained: Trained, tally: StreamedFigures, content: Json, more: Sequence[exhibit.Exhibit] = ()
) -> None:
    """Write the pictures of the predictive distributions, and more; a warning if there are none at all."""
    eta, rows = tally.kept()
    split = content.get("split", "test")
    sample = Sample.of({split: rows}, trained.schema.target, trained.schema.labels, trained.schema.row_shape)
    if "split" not in content:
        sample = replace(sample, description=sample.description.removeprefix("test "))
    seen = forecast(trained.objective, eta[sample.index], sample.rows)
    if seen is None and not more:
        warn(f"plots={folder}: there are no pictures of such distributions")
        return
    shown = [] if seen is None else exhibit.predictive(sample, seen, content["metrics"])
    exhibit.store(folder, [*shown, *more])


def _stored_estimates(run: Path, content: Json) -> Json:
    """Null model and exact estimates on the rows evaluated, from the run's summary.

    Empty where the summary is of other rows: it has another number of them, or another NLL of the model.
    """
    file, split = run / "summary.json", content["split"]
    if not file.is_file():
        return {}
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        then, now = summary["metrics"][split]["nll_nats"], content["metrics"]["nll_nats"]
        same = summary["num_rows"][split] == content["num_rows"] and abs(then - now) <= 1e-6 * max(1.0, abs(then))
        return {name: summary[name][split] for name in EXACT if split in summary.get(name, {})} if same else {}
    except (ValueError, KeyError, TypeError) as error:
        warn(f"{file} has no exact estimates to be read: {error!r}")
        return {}
