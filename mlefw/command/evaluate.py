"""mlefw evaluate: score a trained run on data."""

import json
from pathlib import Path
from typing import Any

from mlefw import build, checkpoint, recalibration, score
from mlefw.atomic import write_json
from mlefw.console import EXACT
from mlefw.errors import UsageError
from mlefw.new_data import adapted, check_output, read_table
from mlefw.objective import evaluate
from mlefw.run_posterior import averaged_figures, posterior_of
from mlefw.support import check_support
from mlefw.warn import warn


def run(config: dict[str, Any], plugins: tuple[str, ...] = ()) -> dict[str, Any]:
    """The figures of the run's model on the rows asked for.

    Raises:
        UsageError: a mistake in settings, checkpoint or data.
    """
    if not config["run"]:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    if config["output"]:
        check_output(Path(config["output"]), config["overwrite"])
    if config["split"] is not None and config["data"]["path"] is not None:
        raise UsageError("split= is for the run's own data; all rows of data.path are scored")
    loaded = checkpoint.load(config["run"], plugins)
    method = build.build_uncertainty(config)
    posterior = posterior_of(loaded, method, stored=True)
    trained = adapted(loaded, config["data"])
    table = read_table(trained, config["data"], config["split"] or "test")
    rows = trained.schema.rows(table, trained.objective.head.log_link)
    check_support(trained.objective.head, rows, table, trained.schema.target)
    metrics = build.build_metrics(trained.config, trained.objective.head)
    evaluation = evaluate(trained.objective, rows)
    figures = score.figures(trained.objective, evaluation, rows, metrics)
    content: dict[str, Any] = {"run": str(trained.path), "num_rows": rows.num_rows, "metrics": figures}
    if config["data"]["path"] is None:
        content["split"] = config["split"] or "test"
        content |= _beside(Path(config["run"]), content)
    if trained.calibration is not None and trained.trained is not None:
        method, before = trained.config["choices"]["calibrate"], evaluate(trained.trained, rows)
        known = {"before": recalibration.nll(before, rows), "after": recalibration.nll(evaluation, rows)}
        fitted = {"method": method, "fitted_on": recalibration.FITTED_ON}
        content["calibration"] = {**fitted, "parameters": trained.calibration.figures(), **known}
    if posterior is not None:
        content["laplace" if method is None else method.name] = averaged_figures(
            trained.objective, posterior, rows, metrics
        )
    if config["output"]:
        write_json(Path(config["output"]), content)
    return content


def _beside(run: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Null model and exact estimates on the same rows, from the run's summary; empty where that speaks of others."""
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
