"""Which jobs of a sweep are trained together: those of equal signature, of which rows and network allow it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from mlefw.batch.base import size_of
from mlefw.configuration.settings import Settings
from mlefw.errors import MlefwError
from mlefw.rows.stored import StoredRows
from mlefw.run.held_out import is_ensemble
from mlefw.run.prepare import Prepared
from mlefw.training.datamodule import MOST_INPUTS

MAX_MEMBERS = 128
"""Of a group."""

_MAX_BATCH = 1024
"""Rows of a step."""

_MAX_PARAMETERS = 2**15
"""Of a network. With more, the optimiser's passes over the states of all members are slower than one by one."""
_MAX_WORK = 2**23
"""Rows times parameters of a step. Up to there a step takes longer to start its operations than to compute them."""

_MOST_INPUTS = 2**24
"""Rows times inputs, summed over members with rows of their own, which memory holds once for each member."""

_MODELS = ("mlefw.model.mlp.Mlp", "mlefw.model.linear.Linear")
_PRIORS = tuple(f"mlefw.prior.{name}Prior" for name in ("none.No", "l2.L2", "l1.L1", "elastic_net.ElasticNet"))
_OPTIMIZERS = {
    "torch.optim.SGD": {"lr", "momentum", "dampening", "weight_decay", "nesterov"},
    "torch.optim.Adam": {"lr", "betas", "eps", "weight_decay"},
    "torch.optim.AdamW": {"lr", "betas", "eps", "weight_decay"},
}
_CALLBACKS = ("mlefw.callback.progress.ShowProgress", "mlefw.callback.converged.StopWhenConverged")
_LOGGERS = ("mlefw.callback.event_files.EventFiles",)
_TRAINER: dict[str, tuple[Any, ...]] = {
    "_target_": ("lightning.Trainer",),
    "accelerator": ("auto", "cpu"),
    "devices": (1, "1", "auto"),
    "precision": (None, 32, "32", "32-true"),
    "num_sanity_val_steps": (-1,),
    "enable_progress_bar": (True, False),
    "enable_model_summary": (True, False),
}
_OWN = {"seed", "run_dir"}


class UnsuitableError(MlefwError):
    """The jobs cannot be trained together, or would be no faster. Raised before anything is written."""

    exit_code = 64


def signature(config: Settings) -> str | None:
    """The settings in which jobs that are trained together agree, as a text; None for a job that is trained alone."""
    if config.resume or config.checkpoint.every_steps or not all(_requirements(config)):
        return None
    common = {name: node for name, node in config.plain.items() if name not in _OWN}
    common["optimizer"] = {name: value for name, value in config.optimizer.items() if name != "lr"}
    common["prior"] = {name: value for name, value in config.prior.items() if not name.endswith("scale")}
    common["ensemble"] = {name: value for name, value in config.ensemble.items() if name != "member"}
    return json.dumps(common, sort_keys=True, default=str)


def _requirements(config: Settings) -> Iterable[bool]:
    """Whether each part of the settings is one with which runs can be trained together."""
    model, optimizer, trainer = config.model, config.optimizer, config.trainer
    yield model["_target_"] in _MODELS and not model.get("dropout")
    yield config.prior["_target_"] in _PRIORS
    yield {*optimizer} - {"_target_", "_partial_"} <= _OPTIMIZERS.get(optimizer["_target_"], set())
    yield str(config.scheduler.get("_target_", "torch.")).startswith("torch.")
    parts = (config.data, config.head, config.batch, config.loss, config.inputs)
    yield all(str(node.get("_target_", "mlefw.")).startswith("mlefw.") for node in parts)
    yield not is_ensemble(config) and not config.candidates
    yield "_target_" not in config.augment
    yield config.step.replay and not config.compile and not config.experiment
    yield all(str(node["_target_"]).startswith("mlefw.metric.") for node in config.metric.values())
    yield all(node["_target_"] in _CALLBACKS for node in config.callback.values())
    yield all(node["_target_"] in _LOGGERS for node in config.logger.values())
    yield isinstance(trainer.max_epochs, int) and trainer.max_epochs > 0
    yield all(value in _TRAINER.get(name, ()) for name, value in trainer.node.items() if name != "max_epochs")
    yield config.batch.get("size") == "auto" or config.batch.get("size", 0) <= _MAX_BATCH
    yield not torch.cuda.is_available()


def check(prepared: Prepared) -> None:
    """Hold a run to the sizes up to which training together is faster.

    Raises:
        UnsuitableError: the run is faster alone, or its rows do not fit into memory.
    """
    rows, parameters = prepared.data.train, list(prepared.estimand.objective.parameters())
    if isinstance(rows, StoredRows):
        raise UnsuitableError("rows beyond memory")
    if rows.x.ndim != 2 or not rows.x.is_floating_point():
        raise UnsuitableError("rows that are no rows of a table")
    size = size_of(getattr(prepared.rows.regime, "size", rows.num_rows), rows.num_rows)
    if rows.num_rows * prepared.estimand.objective.model.num_inputs > max(rows.x.numel(), MOST_INPUTS):  # type: ignore[operator]
        raise UnsuitableError("inputs of the model beyond memory")
    if hasattr(prepared.rows.regime, "factor"):
        size = rows.num_rows
    count = prepared.num_parameters
    if size > _MAX_BATCH or count > _MAX_PARAMETERS or size * count > _MAX_WORK:
        raise UnsuitableError(f"{size} rows a step of {count} parameters")
    if len({p.dtype for p in parameters}) != 1 or not all(p.requires_grad for p in parameters):
        raise UnsuitableError("parameters of several kinds")


def alike(members: Sequence[Prepared], num_epochs: int) -> list[bool]:
    """Whether each member, of equal signature, can be trained together with the first one, which has passed `check`.

    Members that share their rows can. Members with rows of their own can where they take equally many steps in each
    of `num_epochs` epochs and have buffers of equal shapes, and where the rows of all fit into memory.
    """
    data = [one.data for one in members]
    if all(one is data[0] for one in data):
        return [True] * len(members)
    inputs = sum(_num_inputs(one) for one in members)
    if inputs > _MOST_INPUTS:
        return [True] + [False] * (len(members) - 1)
    facts = [(_steps(one, num_epochs), _shapes(one)) for one in members]
    return [one == facts[0] for one in facts]


def _num_inputs(member: Prepared) -> int:
    model: Any = member.estimand.objective.model
    rows = sum(rows.num_rows for rows in member.data.splits.values())
    return rows * max(int(model.num_inputs), member.data.train.x.shape[1])


def _steps(member: Prepared, num_epochs: int) -> list[int]:
    num_rows = member.data.train.num_rows
    return [member.rows.regime.num_batches(num_rows, epoch) for epoch in range(num_epochs)]


def _shapes(member: Prepared) -> list[Any]:
    """The number of parameters, and the names, shapes and types of the buffers that are stacked.

    Shapes of parameters are not asked for: at an equal signature they differ in the number of inputs alone.
    """
    objective = member.estimand.objective
    buffers = [*objective.head.named_buffers(), *objective.loss.named_buffers(), *objective.model.model.named_buffers()]  # type: ignore[union-attr]
    return [len(list(objective.parameters())), *((name, value.shape, value.dtype) for name, value in buffers)]


def groups(signatures: list[str | None], num_processes: int) -> list[list[int]]:
    """Positions of the jobs of each group: at least two of equal signature, split evenly over the processes."""
    found: dict[str, list[int]] = {}
    for index, one in enumerate(signatures):
        if one is not None:
            found.setdefault(one, []).append(index)
    split = []
    for members in found.values():
        count = max(min(num_processes, len(members)), -(-len(members) // MAX_MEMBERS))
        split += [members[start::count] for start in range(count)]
    return [members for members in split if len(members) > 1]
