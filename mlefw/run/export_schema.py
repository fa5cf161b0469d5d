"""The description of an exported file: what each input and output means, as JSON beside it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from mlefw.reading.notation import MISSING_WORDS
from mlefw.run.checkpoint import Trained
from mlefw.schema.feature import Feature
from mlefw.schema.schema import Schema
from mlefw.schema.tokens import TokenSchema
from mlefw.system.atomic import Json

_INPUTS = {
    "x": "coded rows; columns are in the order of `columns` where they have names",
    "offset": "added to the first eta",
    "exposure": "above zero; its logarithm is added to the first eta",
    "trials": "number of trials of each row",
}
_OUTPUTS = {
    "eta": "what the network and the learnt shared parameters give, before inverse links",
    "mean": "mean of the distribution",
    "probs": "probability of each label, in the order of `labels` of the target",
}


def described(
    trained: Trained, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], checked: Json
) -> Json:
    """The content of the JSON file.

    Args:
        trained: the model.
        inputs: the inputs of some rows by name.
        outputs: the outputs of these rows by name.
        checked: how the file was compared with the model.
    """
    schema, head, calibration = trained.schema, trained.objective.head, trained.calibration
    intervals = "conformal quantile" if calibration and not calibration.changes_density else "quantile"
    found: Json = {
        "mlefw": version("mlefw"),
        "head": trained.config.choices.get("head"),
        "calibrate": trained.config.choices.get("calibrate"),
        "inputs": [_entry(name, value, _INPUTS[name]) for name, value in inputs.items()],
        "outputs": [_entry(name, value, _meaning(name, intervals)) for name, value in outputs.items()],
        "targets": [
            {"name": t.name, "kind": t.kind, "labels": None if t.labels is None else list(t.labels)}
            for t in schema.targets
        ],
        "eta": list(head.eta_names + head.shared_names),
        "checked": checked,
    }
    if isinstance(schema, Schema):
        found |= {"columns": schema.names, "features": [_feature(schema, one) for one in schema.plain_features]}
        found |= {"offset": schema.offset, "exposure": schema.exposure, "trials": schema.trials}
        if schema.design is not None:
            parts = schema.design.parameters
            found["formulas"] = {one.parameter: one.text for one in parts}
            found["note"] = "columns behind those of the features are of formulas: mlefw computes them from a table"
    elif isinstance(schema, TokenSchema):
        found |= {"tokens": schema.tokens, "alphabet": list(schema.alphabet), "vocabulary": schema.vocabulary}
    else:
        found |= {"columns": schema.names}
    return found


def _entry(name: str, value: np.ndarray, meaning: str) -> Json:
    return {"name": name, "type": value.dtype.name, "shape": ["rows", *value.shape[1:]], "meaning": meaning}


def _meaning(name: str, quantile: str) -> str:
    last = name.rpartition("_")[2]
    if "quantile_" in name:
        return f"{quantile} of the target at {last}"
    key = name if name in _OUTPUTS else last
    return _OUTPUTS.get(key, "parameter of the distribution (docs/heads.md)")


def _feature(schema: Schema, one: Feature) -> Json:
    """How a raw column becomes coded columns."""
    found: Json = {"name": one.name, "kind": one.kind, "columns": one.names}
    if one.kind == "numeric":
        found["unit"] = "days since 1970-01-01" if one.is_date else "that of the training data, unchanged"
        found["missing"] = one.means[0] if schema.missing == "impute" else None
    else:
        found |= {"levels": list(one.levels), "reference": one.levels[0]}
        found["coding"] = (
            "a column for each level but the reference: 1 in rows of the level, else 0; values are levels as they are "
            "written, spaces and leading zeros included"
        )
        found["unseen"] = _unseen(schema, one.means)
        found["missing"] = one.levels[0] if schema.missing == "impute" else None
    # Words such as NA stand for missing numbers alone: in a column of text they may be levels.
    found["missing_cells"] = list(MISSING_WORDS) if one.kind == "numeric" else [""]
    if one.indicator:
        found["indicator"] = f"the last column, {one.names[-1]!r}, is 1 where the value is missing, else 0"
    return found


def _unseen(schema: Schema, means: Sequence[float]) -> Any:
    return {"error": None, "reference": "0 in all columns", "ignore": list(means)}[schema.unseen]
