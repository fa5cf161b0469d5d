"""From a checkpoint file back to a model that takes raw tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlefw import archive, build
from mlefw.build import Data
from mlefw.calibrate.base import Calibration
from mlefw.callback.resume import objective_state
from mlefw.errors import UsageError
from mlefw.fingerprint import fingerprint
from mlefw.objective import Objective
from mlefw.preflight import check_targets
from mlefw.random_state import isolated
from mlefw.recalibration import recalibrated
from mlefw.run_directory import checkpoint_of
from mlefw.schema import Schema
from mlefw.standardize import Standardized
from mlefw.storage import StoredRows
from mlefw.warn import warn


@dataclass(frozen=True)
class Trained:
    """A trained model: its objective in evaluation mode, on the CPU, and what its columns mean.

    `trained` is the objective before the recalibration that the checkpoint holds, where it holds one.
    """

    objective: Objective
    schema: Schema
    config: dict[str, Any]
    path: Path
    trained: Objective | None = None
    calibration: Calibration | None = None


def card(config: dict[str, Any], data: Data, population: float) -> dict[str, Any]:
    """What a checkpoint carries beside its tensors: plain containers only."""
    rows = {split: fingerprint(part) for split, part in data.splits.items()}
    return {
        "config": config,
        "schema": data.schema.to_dict(),
        "population": population,
        "fingerprint": rows,
        "stored": isinstance(data.train, StoredRows),
    }


@isolated("loading")
def load(run: str | Path, plugins: tuple[str, ...] = ()) -> Trained:
    """The model of a run directory (its best checkpoint) or of a checkpoint file.

    Raises:
        UsageError: not there, damaged, foreign, holding code, or not fitting its own description.
    """
    path = checkpoint_of(run)
    content = archive.read(path)
    try:
        described = content["mlefw"]
        config, schema = described["config"], Schema.from_dict(described["schema"])
        parts = {name: config[name] for name in ("head", "model", "prior", "metric")}
        check_targets({**parts, **{name: config.get(name) or {} for name in ("calibrate", "loss")}}, plugins)
        objective = _rebuild(config, schema, float(described["population"]))
        wanted = objective.state_dict()
        state = objective_state(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: the checkpoint lacks a part of its description ({error})") from error
    compare(path, wanted, state)
    # Parameters take the precision they were trained in; buffers of statistics stay in 64 bit.
    for name, parameter in objective.named_parameters():
        parameter.data = parameter.data.to(state[name].dtype)
    objective.load_state_dict(state)
    calibration = _calibration(path, config, content.get("calibration"))
    if calibration is None:
        return Trained(objective.eval(), schema, config, path)
    return Trained(recalibrated(objective, calibration), schema, config, path, objective.eval(), calibration)


def _calibration(path: Path, config: dict[str, Any], stored: Any) -> Calibration | None:
    """The fitted recalibration of a checkpoint, or None where none was asked for, or none is in this file."""
    calibration = build.build_calibration(config)
    if calibration is None:
        return None
    if stored is None:
        warn(f"{path} holds no recalibration: it is fitted at the end of a run, for best.ckpt; what follows is without")
        return None
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise UsageError(f"{path}: its recalibration is not made of tensors")
    calibration.restore(stored)
    return calibration


def _rebuild(config: dict[str, Any], schema: Schema, population: float) -> Objective:
    head = build.head_of(config, schema.targets)
    model = build.instantiate(config["model"], num_features=schema.num_features, eta_dim=head.eta_dim)
    prior = build.instantiate(config["prior"])
    blank = torch.zeros(schema.num_features, dtype=torch.float64)
    return Objective(Standardized(model, blank, blank.clone()), head, prior, population, build.build_loss(config))


def compare(path: Path, wanted: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """Names and shapes first, so that no tensor of a wrong size is ever copied.

    Raises:
        UsageError: they differ.
    """
    if wanted.keys() != state.keys():
        names = sorted(wanted.keys() ^ state.keys())[:3]
        raise UsageError(
            f"{path}: the tensors do not fit the model it describes; first differences: {', '.join(names)}"
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            raise UsageError(f"{path}: tensor {name} has shape {shapes}")
