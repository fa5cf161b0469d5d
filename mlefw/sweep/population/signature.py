"""Which jobs of a sweep are trained together: those of equal signature, of which rows and network allow it."""

import json
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch

from mlefw.batch.base import size_of
from mlefw.configuration.settings import Node, Settings
from mlefw.errors import MlefwError
from mlefw.objective.gradient import unrecordable
from mlefw.rows.stored import StoredRows
from mlefw.run.held_out import is_ensemble
from mlefw.run.prepare import Prepared
from mlefw.sweep.population.stacked import Stack
from mlefw.system.random_state import RandomStream
from mlefw.training.datamodule import MAX_INPUTS

MAX_MEMBERS = 128
"""Of a group."""

_MAX_BATCH = 1024
"""Rows of a step."""

_MAX_PARAMETERS = 2**15
"""Of a network. With more, the optimiser's passes over the states of all members are slower than one by one."""
_MAX_WORK = 2**23
"""Rows times parameters of a step. Up to there a step takes longer to start its operations than to compute them."""

_NUM_TRIED = 4
"""Rows on which it is tried whether a step of several networks can be computed at once."""

_MOST_INPUTS = 2**24
"""Rows times inputs, summed over members with rows of their own, which memory holds once for each member."""

_MODELS = ("mlefw.model.mlp.Mlp", "mlefw.model.linear.Linear")
"""Models that are faster together. Others are trained together where that is asked for."""
_BUILT_IN = "mlefw.model."
_LOSS_NUMBERS = {
    "mlefw.loss.label_smoothing.LabelSmoothing": "amount",
    "mlefw.loss.focal.Focal": "gamma",
    "mlefw.loss.beta_nll.BetaNll": "beta",
}
_SCHEDULERS = (
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "mlefw.scheduler.warmup_cosine.WarmupCosine",
)
"""Schedulers that set the learning rate and nothing else, so that those of members may differ in their numbers."""
_PRIORS = tuple(f"mlefw.prior.{name}Prior" for name in ("none.No", "l2.L2", "l1.L1", "elastic_net.ElasticNet"))
_OPTIMIZERS = {
    "torch.optim.SGD": {"lr", "momentum", "dampening", "weight_decay", "nesterov"},
    "torch.optim.Adam": {"lr", "betas", "eps", "weight_decay"},
    "torch.optim.AdamW": {"lr", "betas", "eps", "weight_decay"},
}
_WATCH = "mlefw.sweep.search.watch.WatchTrial"
_CALLBACKS = ("mlefw.callback.progress.ShowProgress", "mlefw.callback.converged.StopWhenConverged", _WATCH)
_LOGGERS = ("mlefw.callback.event_files.EventFiles",)
_TRAINER: dict[str, tuple[Any, ...]] = {
    "_target_": ("lightning.Trainer",),
    "accelerator": ("auto", "cpu", "gpu", "cuda"),
    "devices": (1, "1", "auto"),
    "precision": (None, 32, "32", "32-true"),
    "num_sanity_val_steps": (-1,),
    "enable_progress_bar": (True, False),
    "enable_model_summary": (True, False),
}
_OWN = {"seed", "run_dir", "early_stopping"}


class UnsuitableError(MlefwError):
    """The jobs cannot be trained together, or would be no faster. Raised before anything is written."""

    exit_code = 64


def signature(config: Settings, is_asked: bool = False) -> str | None:
    """The settings in which jobs that are trained together agree, as a text; None for a job that is trained alone.

    They may differ in what is data to a step: seed, learning rate, weight decay, bound of the gradient, prior scale,
    dropout, the number of a loss, numbers of a scheduler, and early stopping.

    Args:
        config: the settings of a job.
        is_asked: whether jobs are to be trained together even where that is not known to be faster.
    """
    if obstacle(config, is_asked) is not None:
        return None
    common = {name: node for name, node in config.plain.items() if name not in _OWN}
    common["optimizer"] = _without(config.optimizer, "lr", "weight_decay")
    common["prior"] = {name: value for name, value in config.prior.items() if not name.endswith("scale")}
    common["ensemble"] = _without(config.ensemble, "member")
    common["step"] = _without(config.plain["step"], "clip_norm")
    common["loss"] = _without(config.loss, _LOSS_NUMBERS.get(config.loss.get("_target_", ""), ""))
    common["callback"] = {name: _without(node, "number") for name, node in config.callback.items()}
    if config.model["_target_"].startswith(_BUILT_IN):
        common["model"] = _without(config.model, "dropout")
    if config.scheduler.get("_target_") in _SCHEDULERS:
        common["scheduler"] = config.scheduler["_target_"]
    return json.dumps(common, sort_keys=True, default=str)


def _without(node: Node, *names: str) -> Node:
    return {name: value for name, value in node.items() if name not in names}


def obstacle(config: Settings, is_asked: bool = False) -> str | None:
    """What in the settings of a job keeps it from being trained with others, in a few words; None if nothing does."""
    if config.resume or config.checkpoint.every_steps:
        return "checkpoints within epochs"
    return next((words for words, is_met in _requirements(config, is_asked) if not is_met), None)


def _requirements(config: Settings, is_asked: bool) -> Iterator[tuple[str, bool]]:
    """Parts of the settings, and whether each is one with which runs can be trained together."""
    model, optimizer, trainer = config.model, config.optimizer, config.trainer
    yield "model", is_asked or model["_target_"] in _MODELS
    yield "prior", config.prior["_target_"] in _PRIORS
    settings = {*optimizer} - {"_target_", "_partial_"}
    yield "optimizer", settings <= _OPTIMIZERS.get(optimizer["_target_"], set())
    scheduler = str(config.scheduler.get("_target_", "torch."))
    yield "scheduler", scheduler.startswith("torch.") or scheduler in _SCHEDULERS
    for name in ("data", "head", "batch", "loss", "inputs"):
        yield name, is_asked or str(getattr(config, name).get("_target_", "mlefw.")).startswith("mlefw.")
    yield "ensemble", not is_ensemble(config)
    yield "inputs=auto", not config.candidates
    yield "augment", "_target_" not in config.augment
    yield "step.replay=false", config.step.replay
    yield "compile=true", not config.compile
    yield "experiment", not config.experiment
    yield "metric", all(str(node["_target_"]).startswith("mlefw.metric.") for node in config.metric.values())
    yield "callback", all(node["_target_"] in _CALLBACKS for node in config.callback.values())
    yield "logger", all(node["_target_"] in _LOGGERS for node in config.logger.values())
    yield "trainer.max_epochs", isinstance(trainer.max_epochs, int) and trainer.max_epochs > 0
    for name, value in trainer.node.items():
        yield f"trainer.{name}", name == "max_epochs" or value in _TRAINER.get(name, ())
    yield "batch.size", is_asked or config.batch.get("size") == "auto" or config.batch.get("size", 0) <= _MAX_BATCH
    yield "trainer.accelerator", trainer.accelerator in ("auto", "cpu") or torch.cuda.is_available()


def check(prepared: Prepared, is_asked: bool = False) -> None:
    """Hold a run to what can be trained together, and to the sizes up to which that is faster.

    Args:
        prepared: the run.
        is_asked: whether runs are to be trained together even where that is not known to be faster.

    Raises:
        UnsuitableError: the run cannot be trained with others, or is faster alone; or its rows do not fit into memory.
    """
    rows, parameters = prepared.data.train, list(prepared.estimand.objective.parameters())
    if isinstance(rows, StoredRows):
        raise UnsuitableError("rows beyond memory")
    is_table = len(rows.input_shape) == 1 and not rows.positions and rows.x.is_floating_point()
    if not (is_table or is_asked):
        raise UnsuitableError("rows that are no rows of a table")
    if not is_table and rows.num_rows * prod(rows.input_shape) > MAX_INPUTS:
        raise UnsuitableError("inputs of the model beyond memory")
    if is_table and rows.num_rows * prepared.estimand.objective.model.num_inputs > max(rows.x.numel(), MAX_INPUTS):  # type: ignore[operator]
        raise UnsuitableError("inputs of the model beyond memory")
    if len({p.dtype for p in parameters}) != 1 or not all(p.requires_grad for p in parameters):
        raise UnsuitableError("parameters of several kinds")
    if not is_asked:
        _check_size(prepared)
    _try_step(prepared)


def _check_size(prepared: Prepared) -> None:
    """Hold a run to the sizes up to which training together is faster.

    Raises:
        UnsuitableError: it is faster alone.
    """
    num_rows, count, regime = prepared.data.train.num_rows, prepared.num_parameters, prepared.rows.regime
    size = size_of(getattr(regime, "size", num_rows), num_rows)
    if hasattr(regime, "factor"):
        size = num_rows
    if size > _MAX_BATCH or count > _MAX_PARAMETERS or size * count > _MAX_WORK:
        raise UnsuitableError(f"{size} rows a step of {count} parameters")


def _try_step(prepared: Prepared) -> None:
    """Compute the gradient on a few rows as a group does, by `torch.vmap` over its members.

    Raises:
        UnsuitableError: the model may not be recorded, draws random numbers other than by `nn.Dropout`, has state that
            a step changes, or makes decisions by the values of its rows.
    """
    objective, rows = prepared.estimand.objective, prepared.data.train
    if (part := unrecordable(objective)) is not None:
        name = type(part).__name__
        raise UnsuitableError(f"the code of {name} may do more than compute with tensors (it lacks replayable = True)")
    few = rows.take(torch.arange(min(_NUM_TRIED, rows.num_rows)))
    few = few._replace(x=objective.model.standardize(few.x))  # type: ignore[operator]
    try:
        Stack([objective], [RandomStream(0, "a step that is tried")]).gradient(few, 1.0, True)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
        name = type(objective.model.model).__name__
        raise UnsuitableError(f"{name} cannot be computed for several networks at once: {error}") from error


def alike(members: Sequence[Prepared], num_epochs: int) -> list[bool]:
    """Whether each member, of equal signature, can be trained together with the first one, which has passed `check`.

    Members that share their rows can. Members with rows of their own can where they take equally many steps in each
    of `num_epochs` epochs and have buffers of equal shapes, and where the rows of all fit into memory.
    """
    data = [one.data for one in members]
    if all(one is data[0] for one in data):
        return [True] * len(members)
    if len(data[0].train.input_shape) != 1 or data[0].train.positions:
        return [one is data[0] for one in data]
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
