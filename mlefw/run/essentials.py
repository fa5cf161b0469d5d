"""The part of `summary.json` that every run has: settings, rows, figures and exact estimates."""

from collections.abc import Mapping
from typing import Any

from mlefw.configuration.settings import Settings
from mlefw.head.base import Head
from mlefw.objective.linear_terms import TermsModel
from mlefw.report.references import KEYS
from mlefw.run import archive
from mlefw.run.build import Data
from mlefw.run.prepare import Prepared
from mlefw.score.yardstick import Yardstick, describe
from mlefw.system.atomic import Json

CHOSEN_BY = "validation_nll_nats"
"""Key in `inputs` of a summary: for `inputs=auto` the validation NLL of each candidate, in nats per row."""


def essentials(
    config: Settings, prepared: Prepared, yardstick: Yardstick, figures: Mapping[str, Mapping[str, float]], head: Head
) -> Json:
    """The part of the summary that every run has.

    Args:
        config: the settings.
        prepared: the rows and the objective.
        yardstick: the exact estimates on the rows of each split.
        figures: the figures of the model, by split.
        head: the head that predicts, which a recalibration has changed.
    """
    data, estimand, exact, lines = prepared.data, prepared.estimand, yardstick.exact, yardstick.mean_nll
    summary = {
        "status": "finished",
        **{name: config.choice(name) for name in ("head", "prior", "batch", "model")},
        "loss": config.described("loss"),
        "estimate": estimand.objective.loss.estimate or None,
        "augment": config.described("augment") if "_target_" in config.augment else None,
        "inputs": _inputs(config, prepared),
        "measure": "mass" if head.support.is_discrete else "density",
        "seed": config.seed,
        "num_rows": {split: rows.num_rows for split, rows in data.splits.items()},
        "num_features": data.schema.num_features,
        **_arrays(data),
        "num_parameters": prepared.num_parameters,
        "metrics": figures,
        "null": {split: {"nll_nats": value} for split, value in lines["null"].items()},
        "baseline_num_features": len(estimand.baseline_features) if estimand.is_subset else None,
        "baseline": describe(exact.mle, lines.get("mle"), yardstick.absent),
        "baseline_map": describe(exact.map, lines.get("map")),
        **{KEYS[name]: describe(table, lines.get(name)) for name, table in exact.further.items()},
        "baseline_longer": describe(exact.longer, lines.get("longer")),
        "baseline_ridge": _ridge(config, yardstick),
        "distance": {},
        "versions": archive.versions(),
    }
    return {name: value for name, value in summary.items() if value is not None}


def _arrays(data: Data) -> Json:
    """Of arrays the shape of a row, what an observation is and their number, and the unit of standard errors.

    The unit is `rows`, or by split the number and kind of units, such as `41 blocks`.
    """
    shape = data.schema.row_shape
    unit = {"nll_se_unit": {split: units.name for split, units in data.units.items()} or "rows"}
    if shape.is_table:
        return unit if data.units else {}
    counts = {split: rows.population for split, rows in data.splits.items()}
    facts = {"input_shape": list(shape.input_shape), "observation": shape.observation, "num_observations": counts}
    return facts | unit


def _inputs(config: Settings, prepared: Prepared) -> Json | None:
    """Name of the input map and number of inputs; None where the model gets the features themselves."""
    model = prepared.estimand.objective.model
    # Beside formulas the map is that of the network's own features.
    inputs: Any = model.model.inputs if isinstance(model.model, TermsModel) else model.inputs
    return None if inputs is None else {"method": config.choice("inputs"), "num_inputs": inputs.num_inputs}


def _ridge(config: Settings, yardstick: Yardstick) -> Json | None:
    content = describe(yardstick.exact.ridge, yardstick.mean_nll.get("ridge"))
    return None if content is None else {"scale": config.baseline["ridge_scale"], **content}
