"""mlefw evaluate: score a trained run on data."""

from pathlib import Path
from typing import Any

from mlefw import build, checkpoint, score
from mlefw.atomic import write_json
from mlefw.errors import UsageError
from mlefw.new_data import check_output, read_table
from mlefw.objective import evaluate
from mlefw.run_posterior import averaged_figures, posterior_of
from mlefw.support import check_support


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
    trained = checkpoint.load(config["run"], plugins)
    posterior = posterior_of(trained, build.build_uncertainty(config), stored=True)
    table = read_table(trained, config["data"], config["split"] or "test")
    rows = trained.schema.rows(table, trained.objective.head.log_link)
    check_support(trained.objective.head, rows, table, trained.schema.target)
    metrics = build.build_metrics(trained.config, trained.objective.head)
    evaluation = evaluate(trained.objective, rows)
    figures = score.figures(trained.objective, evaluation, rows, metrics)
    content = {"run": str(trained.path), "num_rows": rows.num_rows, "metrics": figures}
    if posterior is not None:
        content["laplace"] = averaged_figures(trained.objective, posterior, rows, metrics)
    if config["output"]:
        write_json(Path(config["output"]), content)
    return content
