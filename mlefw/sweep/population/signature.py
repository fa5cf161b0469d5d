"""Which jobs of a sweep can be trained together."""

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

_MAX_BATCH = 1024
_MAX_PARAMETERS = 2**15
"""Of a network: beyond, the optimiser's passes over the states of all members take longer than one after the other."""
_MAX_WORK = 2**23
"""Rows times parameters of a step, up to which starting its operations takes longer than what they compute."""

_MOST_INPUTS = 2**24
"""Inputs of the networks of all members that have rows of their own: of more, memory would hold the rows many times."""

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
    """The jobs cannot be trained together, or would gain nothing by it; nothing is written yet."""

    exit_code = 64


def signature(config: Settings) -> str | None:
    """What jobs that are trained together have in common; None for a job that is trained alone."""
    if config.resume or config.checkpoint.every_steps or not all(_known(config)):
        return None
    common = {name: node for name, node in config.plain.items() if name not in _OWN}
    common["optimizer"] = {name: value for name, value in config.optimizer.items() if name != "lr"}
    common["prior"] = {name: value for name, value in config.prior.items() if not name.endswith("scale")}
    common["ensemble"] = {name: value for name, value in config.ensemble.items() if name != "member"}
    return json.dumps(common, sort_keys=True, default=str)


def _known(config: Settings) -> Iterable[bool]:
    model, optimizer, trainer = config.model, config.optimizer, config.trainer
    yield model["_target_"] in _MODELS and not model.get("dropout")
    yield config.prior["_target_"] in _PRIORS
    yield {*optimizer} - {"_target_", "_partial_"} <= _OPTIMIZERS.get(optimizer["_target_"], set())
    yield str(config.scheduler.get("_target_", "torch.")).startswith("torch.")
    parts = (config.data, config.head, config.batch, config.loss, config.inputs)
    yield all(str(node.get("_target_", "mlefw.")).startswith("mlefw.") for node in parts)
    yield not is_ensemble(config) and not config.candidates
    yield config.step.replay and not config.compile and not config.experiment
    yield all(str(node["_target_"]).startswith("mlefw.metric.") for node in config.metric.values())
    yield all(node["_target_"] in _CALLBACKS for node in config.callback.values())
    yield all(node["_target_"] in _LOGGERS for node in config.logger.values())
    yield isinstance(trainer.max_epochs, int) and trainer.max_epochs > 0
    yield all(value in _TRAINER.get(name, ()) for name, value in trainer.node.items() if name != "max_epochs")
    yield config.batch.get("size") == "auto" or config.batch.get("size", 0) <= _MAX_BATCH
    yield not torch.cuda.is_available()


def check(prepared: Prepared) -> None:
    """Hold a member to what makes training together faster.

    Raises:
        UnsuitableError: its steps compute so much that it is better trained alone.
    """
    rows, parameters = prepared.data.train, list(prepared.estimand.objective.parameters())
    if isinstance(rows, StoredRows):
        raise UnsuitableError("rows beyond memory")
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
    """Whether each member can train together with the first one; `check` has let that one through.

    With the same rows all can; with rows of their own those that take as many steps in each epoch, and have learnt
    tensors of the same shapes, unless all of the rows together are too many to be held at once.
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
    """The number of parameters, and the buffers that are stacked, whose shapes have to agree.

    Shapes of parameters may differ in the number of inputs alone, since the architectures are one.
    """
    objective = member.estimand.objective
    learnt = [*objective.head.named_buffers(), *objective.loss.named_buffers(), *objective.model.model.named_buffers()]  # type: ignore[union-attr]
    return [len(list(objective.parameters())), *((name, value.shape, value.dtype) for name, value in learnt)]


def groups(signatures: list[str | None], num_processes: int) -> list[list[int]]:
    """Positions of jobs that are trained together: at least two, split evenly over the processes, none too large."""
    found: dict[str, list[int]] = {}
    for index, one in enumerate(signatures):
        if one is not None:
            found.setdefault(one, []).append(index)
    split = []
    for members in found.values():
        count = max(min(num_processes, len(members)), -(-len(members) // MAX_MEMBERS))
        split += [members[start::count] for start in range(count)]
    return [members for members in split if len(members) > 1]
