"""Loading a trained model from a checkpoint file, to be applied to raw tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from mlefw.calibrate.base import Calibration
from mlefw.callback.resume import objective_state
from mlefw.callback.stored_state import Content
from mlefw.configuration.check import check_parts
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.record import typed
from mlefw.configuration.settings import Node, Settings
from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs
from mlefw.metric.base import Metric
from mlefw.objective.objective import Objective
from mlefw.reading.table import Table
from mlefw.rows.fingerprint import fingerprint
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.stored import StoredRows
from mlefw.rows.tensor_inputs import unit_statistics
from mlefw.run import archive, build, network
from mlefw.run.build import Data
from mlefw.run.directory import checkpoint_of
from mlefw.run.stored_estimates import EXACT
from mlefw.schema.kinds import RowSchema, schema_from
from mlefw.schema.schema import Schema
from mlefw.score.recalibration import recalibrated
from mlefw.system.random_state import isolated
from mlefw.system.warning import warn

_REQUIRED = ("head", "model", "prior", "metric", "data")
"""Sections of the settings in a checkpoint from which objects are built; each has to be there."""

_OPTIONAL = ("calibrate", "inputs", "loss", "uncertainty", "cv", "ensemble")
"""Sections from which objects are built where they are there."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Trained:
    """A trained model, on the CPU and in evaluation mode.

    Attributes:
        objective: model, head and prior; with the recalibration, where the checkpoint holds one.
        schema: what columns or arrays mean.
        config: the settings of the run.
        path: the checkpoint file.
        uncalibrated: the objective without the recalibration; None where there is no recalibration.
        calibration: the fitted recalibration, or None.
    """

    objective: Objective
    schema: RowSchema
    config: Settings
    path: Path
    uncalibrated: Objective | None = None
    calibration: Calibration | None = None

    @property
    def folder(self) -> Path:
        """The directory of the run; of an ensemble its own."""
        return self.path if self.path.is_dir() else self.path.parent.parent

    def adapted(self, **ways: Any) -> "Trained":
        """The model with other ways to treat `missing` and `unseen` values."""
        return replace(self, schema=self.schema.adapted(**ways))

    def metrics(self) -> list[Metric]:
        """New metrics as the settings of the run name them."""
        return build.build_metrics(self.config, self.objective.head, self.schema.token_bytes)

    def rows(self, table: Table, target_required: bool = True, whole: bool = True) -> Rows:
        """The rows of a table as the model takes them (see `Schema.rows`)."""
        return self.schema.rows(table, self.objective.head.log_link, target_required, whole)


def essential(content: Content) -> Content:
    """The part of the content of a checkpoint from which `restored` makes the model: tensors and plain containers."""
    state = {f"objective.{name}": value for name, value in objective_state(content).items()}
    known: Content = {name: content[name] for name in ("mlefw", "calibration") if name in content}
    return {"state_dict": state, **known}


def card(config: Settings, data: Data, population: float) -> Content:
    """The description of a model that its checkpoint holds, in plain containers; `Card` is its form when read."""
    rows = {split: fingerprint(part) for split, part in data.splits.items()}
    return {
        "config": config.plain,
        "schema": data.schema.to_dict(),
        "population": population,
        "fingerprint": rows,
        "stored": isinstance(data.train, StoredRows),
    }


@dataclass(frozen=True)
class Card:
    """The description of a model in its checkpoint; a part with a default is missing in files of earlier versions.

    Attributes:
        config: the settings of the run.
        schema: what columns or arrays mean, a `RowSchema`; in the file its plain values, with its `form`.
        population: sum of the weights of the training rows.
        fingerprint: a hash of the coded rows of each split.
        stored: whether the training rows were in files, and not in memory.
    """

    config: Node
    schema: Any
    population: float
    fingerprint: dict[str, str] = field(default_factory=dict)
    stored: bool = False

    @classmethod
    def of(cls, path: Path, content: Content) -> "Card":
        """The description in the content of a checkpoint file.

        Raises:
            UsageError: a part is missing or of the wrong type.
        """
        known = {one.name for one in fields(cls)}
        try:
            found = typed(cls, {name: part for name, part in content["mlefw"].items() if name in known}, "it")
            found = replace(found, schema=schema_from(found.schema))
            if not found.population > 0:
                raise UsageError(f"it.population is {found.population}: expected a positive number")
        except UsageError as error:
            raise UsageError(f"{path}: the checkpoint lacks a part of its description: {error}") from None
        return found


def load(run: str | Path, plugins: tuple[str, ...] = ()) -> Trained:
    """The model of a run directory (its best checkpoint) or of a checkpoint file.

    Raises:
        UsageError: there is no such file; it is damaged, of another program or holds code; or its tensors do not fit
            its description.
    """
    path = checkpoint_of(run)
    return restored(path, archive.read(path), plugins)


@isolated("loading")
def restored(path: Path, content: Content, plugins: tuple[str, ...] = ()) -> Trained:
    """The model in the content of a checkpoint; `path` is the file, for messages.

    Raises:
        UsageError: tensors do not fit the description.
    """
    described = Card.of(path, content)
    schema, state = described.schema, objective_state(content)
    with _naming_file(path):
        _check_config(described.config, plugins)
        if isinstance(schema, Schema):
            _check_schema(schema)
        config = Settings.of(described.config)
        objective = _rebuild(path, config, described, state, is_estimate=EXACT in content)
        calibration = _calibration(path, config, content.get("calibration"))
        _check_prediction(path, objective, schema.row_shape)
    if calibration is None:
        return Trained(objective.eval(), schema, config, path)
    return Trained(recalibrated(objective, calibration), schema, config, path, objective.eval(), calibration)


def _check_schema(schema: Schema) -> None:
    """Check labels against the kinds of targets, and that formulas make the columns that they made in training."""
    for target in schema.targets:
        if (target.labels is None) != (target.kind == "numeric"):
            raise UsageError(f"the target {target.name!r} is {target.kind}, and its labels are {target.labels}")
    if schema.design is not None:
        schema.design.check()


@contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Turn every error within the block into a `UsageError` that names the file."""
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path}: the checkpoint does not describe a model that can be built ({reason})") from error


def _check_config(config: Node, plugins: tuple[str, ...]) -> None:
    """Check that every class in the settings of a checkpoint may be built, before anything is imported."""
    for name in _REQUIRED:
        if not isinstance(config.get(name), dict):
            raise UsageError(f"the checkpoint lacks a part of its description: its settings have no {name}")
    choices = config.get("choices")
    if not isinstance(choices, dict) or not all(isinstance(name, str | None) for name in choices.values()):
        raise UsageError("the checkpoint lacks a part of its description: the names of its choices")
    check_parts({name: config.get(name) for name in (*_REQUIRED, *_OPTIONAL)}, plugins)


def _calibration(path: Path, config: Settings, stored: Any) -> Calibration | None:
    """The fitted recalibration of a checkpoint, or None where none was asked for, or none is in this file."""
    calibration = build.build_calibration(config.calibrate)
    if calibration is None:
        return None
    if stored is None:
        warn(f"{path} holds no recalibration: it is fitted at the end of a run, for best.ckpt; what follows is without")
        return None
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise UsageError(f"{path}: its recalibration is not made of tensors")
    calibration.restore(stored)
    return calibration


def _rebuild(
    path: Path, config: Settings, described: Card, state: dict[str, torch.Tensor], is_estimate: bool
) -> Objective:
    """Build the objective that a checkpoint describes, and load its tensors.

    The model of an exact estimate has a weight for every design column in every column of eta, zero where the formula
    of a parameter does not have it.
    """
    schema = described.schema
    head = build.head_of(config.head, schema.targets)
    used = schema.used(head.eta_dim) if isinstance(schema, Schema) and not is_estimate else None
    shape = schema.row_shape
    if used is None:
        inputs = _inputs(config, shape, state)
        shape = shape if inputs is None else shape.with_inputs(inputs.num_inputs)
        _check_size(path, config, shape, head.eta_dim, state)
        model = network.build_model(config.model, shape, head.eta_dim)
    else:
        known = _below("model.model.inputs.", state)
        restore = lambda one, _: one.restore(known)  # noqa: E731
        penalised = isinstance(schema, Schema) and schema.is_penalised
        model, inputs = network.build_network(config, shape, head.eta_dim, used, restore, penalised)
    prior = instantiate("prior", config.prior)
    whole = network.surrounded(model, config.model, shape, *unit_statistics(schema.row_shape), inputs)
    objective = Objective(whole, head, prior, described.population, build.build_loss(config.loss))
    build.build_metrics(config, head, schema.token_bytes)
    check_tensors(path, objective.state_dict(), state)
    # Parameters take the precision they were trained in; buffers of statistics stay in 64 bit.
    for name, parameter in objective.named_parameters():
        parameter.data = parameter.data.to(state[name].dtype)
    objective.load_state_dict(state)
    return objective


def _inputs(config: Settings, shape: RowShape, state: dict[str, torch.Tensor]) -> Inputs | None:
    """The learnt map of features to inputs of the model, with its tensors; None for `inputs=standard`."""
    inputs = network.build_inputs(config, shape)
    if inputs is not None:
        inputs.restore(_below("model.inputs.", state))
    return inputs


def _below(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _check_size(path: Path, config: Settings, shape: RowShape, eta_dim: int, state: dict[str, torch.Tensor]) -> None:
    """Check the tensors of a built-in model before memory is allocated: settings may ask for more than there is."""
    if not str(config.model["_target_"]).startswith("mlefw."):
        return
    with torch.device("meta"):
        model = network.build_model(config.model, shape, eta_dim)
    check_tensors(path, model.state_dict(), _below("model.model.", state))


@torch.no_grad()
def _check_prediction(path: Path, objective: Objective, shape: RowShape) -> None:
    """Refuse a model whose prediction for a row of means of the training rows is not finite."""
    model = objective.eval().model
    if not bool((getattr(model, "scale", torch.ones(1)) > 0).all()):
        raise UsageError(f"{path} is damaged: tensor model.scale holds a value that is not positive")
    offset = torch.zeros(1, *shape.positions, dtype=torch.float64)
    eta = objective.eta(model.typical(), offset)  # type: ignore[operator]
    objective.head(eta)
    if not bool(eta.isfinite().all()):
        raise UsageError(f"{path} is damaged: its model predicts nothing finite for the mean of its training rows")


def check_tensors(path: Path, wanted: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """Check names, shapes, types and values of tensors before they are loaded.

    Args:
        path: the file, for messages.
        wanted: the tensors of the model that was built; types may differ in the precision of floating-point numbers.
        state: the tensors of the file.

    Raises:
        UsageError: they do not fit, or a value is not finite.
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
        kinds = [one.dtype if not one.dtype.is_floating_point else torch.float for one in (tensor, state[name])]
        if kinds[0] != kinds[1] or state[name].dtype not in (*_FLOATS, tensor.dtype):
            raise UsageError(f"{path}: tensor {name} is of {state[name].dtype}, expected {tensor.dtype}")
        if not bool(state[name].isfinite().all()):
            raise UsageError(f"{path} is damaged: tensor {name} holds a value that is not a finite number")
