"""Builds from a configuration what Lightning trains with: module, data module, trainer, loggers and callbacks."""

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from mlefw.configuration.admission import admit
from mlefw.configuration.instantiate import class_of, instantiate
from mlefw.configuration.settings import Node, Settings
from mlefw.distributed import topology
from mlefw.distributed.strategy import ShardedParameters, SummedGradients
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.objective.objective import Objective, rows_at_once
from mlefw.rows.standardize import Standardized
from mlefw.run import lightning_parts, sharded
from mlefw.run.archive import Archive
from mlefw.run.build import Data, build_average, build_metrics
from mlefw.run.estimand import Estimand
from mlefw.training.averaging import Averaging, averaged_tensors
from mlefw.training.datamodule import RowsModule
from mlefw.training.evaluation_loop import PlainEvaluationLoop
from mlefw.training.evaluation_schedule import EvaluationSchedule
from mlefw.training.lightning_internals import answer_signals_alone, evaluate_by
from mlefw.training.module import LikelihoodModule, MakeScheduler
from mlefw.training.recovery import Recovery
from mlefw.training.sharded_step import ShardedStep
from mlefw.training.step import Step, check_optimizer
from mlefw.training.waiting import epochs_to_wait

_PATIENCE = 20
"""Default patience of `scheduler=plateau` in epochs (see `epochs_to_wait`, which adapts it)."""


def build_module(config: Settings, estimand: Estimand, rows: RowsModule, evaluates: bool = True) -> LikelihoodModule:
    """The LightningModule of a run, for the batches and splits of `rows`.

    Args:
        config: the settings.
        estimand: the objective to train.
        rows: the data module.
        evaluates: whether the module has metrics; false where evaluation is done elsewhere (a population of runs).
    """
    objective = estimand.objective
    # Steps and evaluations read it to decide whether their kernels may be recorded.
    objective.replayable = config.step.replay and not objective.sharded
    kind = ShardedStep if objective.sharded else Step
    step = kind(objective, config.step.clip_norm, rows.regime.max_rows, config.compile)
    if isinstance(objective.model, Standardized):
        # Images and tokens take a fraction of the memory as they are, and augmentations come after the standardisation.
        rows.standardize_once(objective.model.standardize, objective.model.num_inputs)
    make_optimizer = partial(_optimizer, config.optimizer, objective)
    make_scheduler = (
        _scheduler(config, rows.evaluation_schedule, rows.num_limited) if "_target_" in config.scheduler else None
    )
    metrics = {
        split: build_metrics(config, objective.head, estimand.token_bytes) if evaluates else []
        for split in rows.watched
    }
    parts = (objective, step, make_optimizer, make_scheduler, metrics, rows.evaluation_schedule, rows.seed)
    averaging = build_averaging(config, objective)
    return LikelihoodModule(*parts, averaging, Recovery(config.step.recoveries, objective, averaging))


def build_averaging(config: Settings, objective: Objective) -> Averaging | None:
    """Averages the parameters of an objective and the running statistics of its network; None for `average=none`."""
    average = build_average(config.average)
    if average is None:
        return None
    tensors, penalised = averaged_tensors(objective), {id(weight) for weight in objective.weights()}
    masks = [torch.full_like(tensor, id(tensor) in penalised, dtype=torch.bool) for tensor in tensors]
    # Whole tensors would stay on a device for as long as they are referred to: shares come in their place later.
    return Averaging(average, [] if objective.sharded else tensors, [] if objective.prior.smooth else masks)


def _optimizer(node: Node, objective: Objective, parameters: Any) -> torch.optim.Optimizer:
    """The optimiser of the settings, refused where it would not descend the objective."""
    make = instantiate("optimizer", node)
    # One kernel for all parameters; only such a step can be recorded.
    kind = make.func if isinstance(make, partial) else make
    # The kernel of SGD does not know of parameters that are split over processes.
    has_kernel = not objective.sharded or kind in (torch.optim.Adam, torch.optim.AdamW)
    if has_kernel and "fused" in inspect.signature(make).parameters and not node.keys() & {"fused", "foreach"}:
        make = partial(make, fused=True)
    optimizer: torch.optim.Optimizer = make(parameters)
    check_optimizer(optimizer, objective)
    return optimizer


def _scheduler(
    config: Settings, evaluation_schedule: EvaluationSchedule | None, num_limited: int | None = None
) -> MakeScheduler:
    """A function that makes the scheduler from an optimiser; it only checks its settings where no epochs are known."""
    node, own = config.scheduler, {}
    if node["_target_"].endswith(".ReduceLROnPlateau") and "patience" not in node:
        own["patience"] = epochs_to_wait(
            "auto", _PATIENCE, 1 if evaluation_schedule is None else evaluation_schedule.num_steps(1)
        )
    facts = {"num_steps": planned_steps(config, evaluation_schedule, num_limited)} if is_planned(node) else {}
    make: MakeScheduler = instantiate("scheduler", {**node, **own}, **facts)
    return make


def is_planned(node: Node) -> bool:
    """Whether a scheduler depends on the length of the training, `num_steps`."""
    return "_target_" in node and "num_steps" in inspect.signature(class_of(admit("scheduler", node))).parameters


def planned_steps(
    config: Settings, evaluation_schedule: EvaluationSchedule | None, num_limited: int | None = None
) -> int:
    """The number of optimiser steps of a training that is not ended early; 1 where no epochs are known.

    Args:
        config: the settings.
        evaluation_schedule: knows the number of steps of each epoch.
        num_limited: the number of steps of an epoch where a setting limits it; None for no limit.

    Raises:
        UsageError: the settings do not bound it.
    """
    epochs, most = config.trainer.max_epochs, config.trainer.max_steps
    if (epochs is None or epochs < 0) and most < 1:
        raise UsageError(
            f"scheduler={config.choice('scheduler')} is planned over all steps, and trainer.max_epochs={epochs} "
            "sets no end: expected a number of epochs, trainer.max_steps, or scheduler=plateau"
        )
    if evaluation_schedule is None:
        return 1
    total, epoch = 0, 0
    while (epochs is None or epochs < 0 or epoch < epochs) and not 0 < most <= total:
        epoch += 1
        num_steps = evaluation_schedule.num_steps(epoch)
        total += num_steps if num_limited is None else min(num_steps, num_limited)
    return min(total, most) if most > 0 else total


def check_optimization(config: Settings, objective: Objective) -> None:
    """Build optimiser and scheduler once, so that mistakes show before anything is written.

    Raises:
        UsageError: the optimiser refuses its settings, or does not fit prior, loss or batch; or processes cannot share
            the parameters.
    """
    sharded.check(config, objective)
    try:
        parameters = [p for p in objective.parameters() if p.requires_grad]
        optimizer = _optimizer(config.optimizer, objective, parameters)
        if "_target_" in config.scheduler:
            _scheduler(config, None)(optimizer)
    except (ValueError, TypeError) as error:
        raise UsageError(f"optimizer: {error}") from error
    if "LBFGS" in config.optimizer["_target_"] and not objective.loss.is_potential:
        raise UsageError(
            f"optimizer=lbfgs minimises one function, and loss={config.choice('loss')} weighs gradients in a way that "
            "is the gradient of no function: expected optimizer=adam or sgd"
        )
    if "LBFGS" in config.optimizer["_target_"] and not config.batch["_target_"].endswith("FullBatch"):
        raise UsageError("optimizer=lbfgs searches along a line of one objective: it needs batch=full")


def build_datamodule(config: Settings, data: Data, head: Head) -> RowsModule:
    """The data module of a run.

    Raises:
        UsageError: `step.per_chunk` is neither `auto` nor a positive number.
    """
    per_chunk = config.step.per_chunk
    if per_chunk != "auto" and (not isinstance(per_chunk, int) or per_chunk < 1):
        raise UsageError(f"step.per_chunk={per_chunk}: expected 'auto' or a whole number of at least 1")
    every, node = config.trainer.check_val_every_n_epoch, config.trainer.node
    overfit = node.get("overfit_batches") or None
    limit = node.get("limit_train_batches") if overfit is None else overfit
    # Lightning would count chunks as batches: with such a setting a chunk is one batch.
    counts = limit not in (None, 1.0) or overfit is not None
    if per_chunk == "auto":
        per_chunk = 1 if counts or lightning_parts.takes_single_steps(config) else 0
    every = 1 if counts and every is None else every
    regime = instantiate("batch", config.batch)
    rows = RowsModule(data.splits, regime, config.seed, per_chunk, rows_at_once(head, data.train, 8192), every, counts)
    rows.is_repeated = overfit is not None
    rows.num_limited = _num_limited(rows, limit, "limit_train_batches" if overfit is None else "overfit_batches")
    _check_blocks(rows, node.get("limit_val_batches"))
    return rows


def _num_limited(rows: RowsModule, limit: float | int | None, name: str) -> int | None:
    """The number of steps of an epoch by a setting that limits it, which may be a share; None for no limit.

    Raises:
        UsageError: the share of a number that differs from epoch to epoch, or of fewer than one step.
    """
    if limit is None or (limit == 1.0 and isinstance(limit, float) and not rows.is_repeated):
        return None
    if isinstance(limit, int):
        return limit
    regime, num_rows = rows.regime, rows.num_per_epoch
    num_steps = regime.num_batches(num_rows, 0)
    if num_steps != regime.num_batches(num_rows, 10_000):
        raise UsageError(f"trainer.{name}={limit} is a share of epochs of different lengths: expected a whole number")
    if int(limit * num_steps) < 1:
        raise UsageError(f"trainer.{name}={limit} of {num_steps} steps is none: expected a larger share")
    return int(limit * num_steps)


def _check_blocks(rows: RowsModule, limit: float | int | None) -> None:
    """Refuse a share of the blocks of an evaluation that is less than one block, as Lightning does once it trains."""
    for split in rows.watched:
        blocks = max(1, -(-rows.splits[split].num_rows // rows.block))
        if isinstance(limit, float) and int(limit * blocks) < 1:
            raise UsageError(
                f"trainer.limit_val_batches={limit}: the {split} rows are {blocks} blocks of {rows.block} rows"
                "\n  expected: a larger share, or trainer.check_val_every_n_epoch for fewer evaluations"
            )


def build_trainer(
    config: Settings,
    run_dir: Path,
    card: Node,
    callbacks: Sequence[lightning.Callback],
    purge_step: int | None = None,
    network: nn.Module | None = None,
    num_limited: int | None = None,
) -> lightning.Trainer:
    """Lightning's trainer with the checkpoint files of mlefw.

    Args:
        config: the settings.
        run_dir: the directory of the run.
        card: what each checkpoint holds beside its tensors (see `checkpoint.card`).
        callbacks: called before those of the settings.
        purge_step: of a resumed run the first step whose entries in the logs are void; None for a new run.
        network: what is split over the processes; None where each has all of it.
        num_limited: number of steps of an epoch where a setting limits it (`RowsModule.num_limited`).
    """
    node = {name: value for name, value in config.trainer.node.items() if name != "overfit_batches"}
    if num_limited is not None:
        node["limit_train_batches"] = num_limited
    if purge_step is not None:
        node["num_sanity_val_steps"] = 0
    node["precision"] = precision(config)
    if node.get("accelerator", "auto") == "auto":
        # Lightning would choose Apple's MPS, which has no 64-bit floats for the likelihood.
        node["accelerator"] = "cuda" if torch.cuda.is_available() else "cpu"
    loggers = lightning_parts.build_loggers(config, run_dir, purge_step)
    callbacks = [*callbacks, *lightning_parts.build_callbacks(config, run_dir)]
    node |= lightning_parts.bar_settings(callbacks)
    if not any(isinstance(callback, Checkpoint) for callback in callbacks):
        # Of several processes only the first writes checkpoints; Lightning would add a callback to the others.
        node["enable_checkpointing"] = False
    facts: Node = {"logger": loggers, "callbacks": callbacks, "plugins": [Archive(card, run_dir / "checkpoints")]}
    facts["profiler"] = lightning_parts.build_profiler(config, run_dir)
    if topology.is_shared(config.trainer):
        facts["strategy"] = SummedGradients() if network is None else ShardedParameters(network)
        facts["plugins"] += [LightningEnvironment()] if topology.is_started_by_run() else []
    else:
        # Within a job of a cluster (SLURM) Lightning would otherwise wait for the other processes of that job.
        facts["plugins"] += [LightningEnvironment()]
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
    trainer: lightning.Trainer = instantiate("trainer", {**node, "default_root_dir": str(run_dir)}, **facts)
    evaluate_by(trainer, PlainEvaluationLoop(trainer))
    if topology.is_shared(config.trainer):
        # Only the first process gets a signal here, so that asking the others for one is needless.
        answer_signals_alone(trainer)
    return trainer


def precision(config: Settings) -> str:
    """The trainer's precision: 64 bit by default where a line search looks for an exact optimum, else 32 bit.

    Raises:
        UsageError: a precision that would round the likelihood itself, or one that Lightning does not know.
    """
    wanted = config.trainer.precision
    if wanted is None:
        return "64-true" if "LBFGS" in config.optimizer["_target_"] else "32-true"
    known = {64: "64-true", 32: "32-true", "64": "64-true", "32": "32-true"}
    wanted = known.get(wanted, wanted)
    allowed = ("32-true", "64-true", "bf16-mixed")
    if wanted not in allowed:
        raise UsageError(
            f"trainer.precision={wanted!r}: expected {', '.join(allowed)} "
            f"(true half precision and scaled 16-bit losses would round the likelihood)"
        )
    return str(wanted)
