"""mlefw predict: the predictive distributions of new rows, as a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv, parquet
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mlefw import build, checkpoint, predictive
from mlefw.atomic import write_atomically
from mlefw.checkpoint import Trained
from mlefw.errors import UsageError
from mlefw.new_data import check_output, read_table
from mlefw.rows import Table
from mlefw.run_posterior import posterior_of
from mlefw.uncertainty.marginal import predictive as averaged
from mlefw.uncertainty.posterior import Posterior


@torch.no_grad()
def run(config: dict[str, Any], plugins: tuple[str, ...] = ()) -> Path:
    """Write the predictions; their path.

    Raises:
        UsageError: a mistake in settings, checkpoint or data.
    """
    if not config["run"]:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    output, level = Path(config["output"]), config["level"]
    if output.suffix not in (".parquet", ".csv"):
        raise UsageError(f"output={output}: expected a file that ends in .parquet or .csv")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"output={output}: there is no directory {output.absolute().parent}")
    check_output(output, config["overwrite"])
    if not 0 < level < 1:
        raise UsageError(f"level={level}: expected a probability between 0 and 1, such as 0.9")
    trained = checkpoint.load(config["run"], plugins)
    posterior = posterior_of(trained, build.build_uncertainty(config))
    table = read_table(trained, config["data"], "test")
    content = pa.table(_columns(trained, table, level, posterior))

    def write(file: Any) -> None:
        if output.suffix == ".csv":
            csv.write_csv(_inert(content), file)
        else:
            parquet.write_table(content, file)

    write_atomically(output, write)
    return output.absolute()


def _columns(trained: Trained, table: Table, level: float, posterior: Posterior | None) -> dict[str, Any]:
    objective, schema = trained.objective, trained.schema
    known = schema.target in table.columns
    rows = schema.rows(table, objective.head.log_link, target_required=False)
    columns: dict[str, Any] = {"row": np.arange(table.num_rows)}
    if schema.id is not None and schema.id in table.columns:
        columns[schema.id] = pa.array(table.columns[schema.id].tolist())
    eta = objective.eta(rows.x, rows.offset)
    distribution = objective.head(eta) if posterior is None else averaged(objective, posterior, rows)
    if schema.labels is not None:
        columns |= _classes(distribution, list(schema.labels))
    else:
        columns |= _numbers(distribution, level)
    if known:
        nll = objective.head.nll(eta, rows.y) if posterior is None else -distribution.log_prob(rows.y)
        columns["nll_nats"] = nll.numpy()
    return columns


def _numbers(distribution: Distribution, level: float) -> dict[str, Any]:
    lower, upper = predictive.interval(distribution, level)
    values = {
        "mean": distribution.mean,
        "median": predictive.quantile(distribution, 0.5),
        "sd": distribution.stddev,
        "lower": lower,
        "upper": upper,
    }
    return {name: value.numpy() for name, value in values.items()}


def _classes(distribution: Distribution, labels: list[str]) -> dict[str, Any]:
    probs: Tensor = distribution.probs  # type: ignore[attr-defined]
    if not isinstance(distribution, Categorical):
        probs = torch.stack([1 - probs, probs], -1)
    columns: dict[str, Any] = {"class": [labels[k] for k in probs.argmax(-1).tolist()]}
    return columns | {f"prob_{label}": probs[:, k].numpy() for k, label in enumerate(labels)}


def _inert(content: pa.Table) -> pa.Table:
    """Text that a spreadsheet would take for a formula gets a leading apostrophe, in cells and in column names."""

    def mend(text: str) -> str:
        return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text

    for k, field in enumerate(content.schema):
        if pa.types.is_string(field.type):
            column = pa.array([None if text is None else mend(text) for text in content.column(k).to_pylist()])
            content = content.set_column(k, field.name, column)
    return content.rename_columns([mend(name) for name in content.column_names])
