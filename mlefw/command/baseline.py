"""mlefw baseline: only the exact estimate, as a table of coefficients."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlefw.baseline.base import Solution
from mlefw.baseline.predictor import as_objective
from mlefw.command.baseline_page import ADVICE
from mlefw.command.baseline_page import show as show
from mlefw.command.train import baseline_file, write_baseline
from mlefw.configuration.settings import Settings
from mlefw.errors import NumericalError, UsageError
from mlefw.objective.objective import evaluate
from mlefw.report.export import check_export, export
from mlefw.report.observation import observation
from mlefw.report.tidy import glance, tidy
from mlefw.run import build, exact_checkpoint, exhibit, exhibit_terms, judgement, row_scores
from mlefw.run.directory import claim
from mlefw.run.estimate import NAMES
from mlefw.run.prepare import Prepared, estimate, prepare
from mlefw.score.figures import figures_on
from mlefw.system.atomic import Json
from mlefw.system.attempt import attempt
from mlefw.system.local_path import local_path
from mlefw.system.warning import warn

_CRPS = "mlefw.metric.crps.Crps"


def run(config: Settings, run_dir: Path) -> Json:
    """Solve for the exact estimate, write `baseline.json`, and return its content.

    Where the estimate was left out, since it takes too long or failed, the content has the reason and the estimates
    that could be computed.

    Raises:
        UsageError: a mistake in settings or data; nothing is written then.
        NumericalError: no estimate could be computed.
    """
    if not config.baseline.get("_target_"):
        raise UsageError("baseline=none: there is nothing to estimate; expected baseline=linear")
    files = _files(config)
    prepared = prepare(config, run_dir)
    if prepared.estimand.arrays is not None and prepared.estimand.arrays.is_of_network:
        raise UsageError(
            "baseline.features=last_layer is of a trained network: expected mlefw train, or pixels or pca:50 here"
        )
    exact = estimate(config, prepared)
    wanted = "mle" if prepared.estimand.objective.prior.flat else "map"
    if wanted in exact.left_out and all(not solution.may_exist for solution in exact.solutions.values()):
        raise NumericalError(f"the {NAMES[wanted]} was left out: {exact.left_out[wanted]}\n  {ADVICE}")
    content = baseline_file(config, prepared, exact)
    solution = exact.solutions.get(wanted)
    if isinstance(solution, Solution) and solution.may_exist:
        misfit = _misfit(config, prepared, solution, content)
        content |= {} if misfit is None else {"misfit": misfit}
    run_dir = claim(run_dir)
    if config.cv and isinstance(solution, Solution) and solution.exists is not False:
        _score(prepared, solution, run_dir)
    write_baseline(run_dir, content, exact)
    if not config.cv and isinstance(solution, Solution) and solution.may_exist:
        exact_checkpoint.write(config, run_dir, prepared, exact, wanted)
        if config.plots:
            _draw(config, prepared, solution, run_dir)
    _export(files, content)
    return content


def _files(config: Settings) -> dict[str, Path]:
    """The files that `table` and `glance` ask for, checked before anything is computed."""
    found = {name: path for name, path in (("table", config.table), ("glance", config.glance)) if path is not None}
    if wrong := next((name for name, path in found.items() if not isinstance(path, str) or not path), None):
        raise UsageError(f"{wrong}={found[wrong]}: expected the name of a file")
    files = {name: local_path(path, name) for name, path in found.items()}
    for name, path in files.items():
        check_export(path, name)
        if config.cv:
            raise UsageError(f"{name}={path}: a cross-validation has an estimate for each fold; expected cv=none")
    if len({path.absolute() for path in files.values()}) < len(files):
        raise UsageError(f"table={config.table} glance={config.glance}: expected two files")
    return files


def _export(files: Mapping[str, Path], content: Json) -> None:
    """Write the coefficients and the figures of the whole fit as frames."""
    if files and not {"coefficients", "profile"} & {*content}:
        warn(f"{', '.join(files)}: not written, since there are no coefficients")
        return
    frames = {"table": tidy(content), "glance": {name: [value] for name, value in glance(content).items()}}
    for name, path in files.items():
        export(frames[name], path)


def _draw(config: Settings, prepared: Prepared, solution: Solution, run_dir: Path) -> None:
    """Write the pictures of the terms of formulas; none without formulas."""
    schema, dependence = prepared.data.schema, prepared.data.dependence
    kind = config.baseline["standard_errors"]
    make = partial(exhibit_terms.of_terms, solution, schema, kind, replace(dependence, lag=config.baseline.get("lag")))
    if pictures := attempt("the pictures of the terms", make, []):
        exhibit.store(run_dir / "plots", pictures)


def _score(prepared: Prepared, solution: Solution, run_dir: Path) -> None:
    """Write the NLL of each test row of a fold, under the estimate and under the null model."""
    objective, rows = prepared.estimand.objective, prepared.data.splits["test"]
    found = {"test": evaluate(as_objective(solution, objective), rows)}
    null = evaluate(as_objective(prepared.estimand.null, objective), rows).nll
    row_scores.store(run_dir, found, {"test": rows}, prepared.data.schema.labels, null)


def _misfit(config: Settings, prepared: Prepared, solution: Solution, content: Json) -> Json | None:
    """What is not calibrated about the exact estimate on the training rows, or None.

    The dispersion is the one of `baseline.json`, which counts residual degrees of freedom.
    """
    objective, rows = as_objective(solution, prepared.estimand.objective), prepared.data.train
    # The CRPS takes longer than the estimate for some distributions, and no finding is about it.
    judged = {name: node for name, node in config.metric.items() if node.get("_target_") != _CRPS}
    metrics = build.build_metrics(replace(config, metric=judged), objective.head, prepared.estimand.token_bytes)
    with warnings.catch_warnings():
        # What is not finite is not judged, and no figure of these is shown.
        warnings.filterwarnings("ignore", message="not finite on ")
        figures = figures_on(objective, evaluate(objective, rows), rows, metrics)
    figures |= {name: content[name] for name in ("dispersion",) if name in content and name in figures}
    return judgement.judge(config, objective, {"train": rows}, {"train": figures}, observation(content))
