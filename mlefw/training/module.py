"""The LightningModule of every run: an objective, a training step, and metrics."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins import DoublePrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mlefw.distributed import ranks
from mlefw.errors import NumericalError
from mlefw.metric.base import Metric
from mlefw.objective.objective import Objective, not_finite
from mlefw.rows.batch import Batch, Chunk
from mlefw.rows.rows import Rows
from mlefw.scheduler.base import StepScheduler
from mlefw.system.random_state import RandomStream
from mlefw.training.anomaly import anomalies_as_errors
from mlefw.training.averaging import Averaging, averaged_tensors
from mlefw.training.evaluation_schedule import EvaluationSchedule
from mlefw.training.evaluator import Evaluator
from mlefw.training.lightning_internals import count_epoch, count_steps, has_callback_with, is_measured, is_monitored
from mlefw.training.recovery import Recovery
from mlefw.training.step import Step, diverged
from mlefw.training.trainer_view import TrainerView

MakeOptimizer = Callable[[Any], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]

_STEP_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
_EVALUATION_HOOKS = tuple(f"on_validation_{name}" for name in ("batch_start", "batch_end", "epoch_start", "epoch_end"))
"""Hooks of a callback within a step, and within an evaluation: without any, Lightning's own loops are not needed."""


class LikelihoodModule(lightning.LightningModule):
    """Connects Lightning's loops to the training step, the evaluators and the recovery of a run.

    With an `averaging` the objective holds the average of the weights except within `training_step`.

    Args:
        objective: what is trained.
        step: takes one optimiser step.
        make_optimizer: makes the optimiser from the trainable parameters.
        make_scheduler: makes the learning-rate scheduler from the optimiser; None for a constant rate.
        metrics: by name of the split, in the order of the evaluation loaders.
        evaluation_schedule: says after which epochs there is an evaluation.
        seed: seed of the random streams.
        averaging: averages the weights after each step; None for none.
        recovery: goes back where training diverges; by default it never does.

    Attributes:
        figures: of the latest evaluation by split, as plain numbers; for callbacks to read.
        losses: sum of the objectives (nats per row) of the steps since that evaluation, each on its batch, and their
            number.
        place: the epoch that is being trained, from 0, and the number of steps taken before it.
        view: counts epochs and steps in place of Lightning's trainer; None where that does.
        stream: random numbers within steps, such as those of dropout.
        around: random numbers of callbacks and batch regimes; apart from `stream`, so that a callback that draws does
            not change the training. An evaluation has a stream of its own.
    """

    optimizer: Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None = None
    view: TrainerView | None = None

    def __init__(
        self,
        objective: Objective,
        step: Step,
        make_optimizer: MakeOptimizer,
        make_scheduler: MakeScheduler | None,
        metrics: Mapping[str, Sequence[Metric]],
        evaluation_schedule: EvaluationSchedule,
        seed: int = 0,
        averaging: Averaging | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.averaging, self.recovery = averaging, recovery or Recovery(0, objective)
        self.objective, self.step, self.evaluation_schedule = objective, step, evaluation_schedule
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.watched = list(metrics)
        # A module list moves the metrics to the device; it is untyped, since its entries are `nn.Module` to a checker.
        self.metrics: Any = nn.ModuleList(nn.ModuleList(members) for members in metrics.values())
        self.evaluators = [Evaluator(objective, members) for members in metrics.values()]
        self.seed = seed
        self.stream, self.around = RandomStream(seed, "steps"), RandomStream(seed, "around steps")
        self.figures: dict[str, dict[str, float]] = {}
        self.place, self.losses, self.evaluated_step = (0, 0), (0.0, 0), -1
        self.rows_seen, self.started, self.seconds = 0, time.monotonic(), 0.0
        self.is_plain = self.is_evaluated_plainly = self.is_monitored = False

    def on_fit_start(self) -> None:
        """Find out whether steps and evaluations need Lightning's own loops."""
        is_watched = has_callback_with(self.trainer, _STEP_HOOKS) or is_measured(self.trainer)
        self.is_plain = _is_plain(self.trainer) and not is_watched
        self.is_monitored = is_monitored(self.trainer)
        self.is_evaluated_plainly = _is_plain(self.trainer) and not has_callback_with(self.trainer, _EVALUATION_HOOKS)

    def configure_optimizers(self) -> Any:
        """Make the optimiser of all trainable parameters, and its scheduler."""
        if self.averaging is not None and self.objective.sharded:
            # Where processes share them, the parameters are others from here on.
            self.averaging.tensors = averaged_tensors(self.objective)
        self.optimizer = self.make_optimizer(p for p in self.objective.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return self.optimizer
        self.scheduler = self.make_scheduler(self.optimizer)
        interval = "step" if self.is_scheduled_by_step else "epoch"
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.scheduler, "interval": interval}}

    @property
    def is_scheduled_by_step(self) -> bool:
        """Whether the scheduler is stepped after each optimiser step, and not once an epoch."""
        return isinstance(self.scheduler, StepScheduler)

    @property
    def current_epoch(self) -> int:
        """The epoch in training, counted from 0."""
        return super().current_epoch if self.view is None else self.view.current_epoch

    @property
    def global_step(self) -> int:
        """The number of optimiser steps taken so far."""
        return super().global_step if self.view is None else self.view.global_step

    def on_train_epoch_start(self) -> None:
        """Start the clock; a training that has gone back takes steps again from here.

        Except where a resumed run goes on within an epoch: it waits for the next evaluation as the stopped one did.
        """
        if self.global_step == self.place[1]:
            self.recovery.history.is_waiting = False
        self.rows_seen, self.started = 0, time.monotonic()

    def training_step(self, chunk: Chunk, index: int) -> dict[str, Tensor] | None:
        """One optimiser step for each batch of the chunk; none where training has gone back since the last evaluation.

        Returns:
            For callbacks, as `loss`, the mean of the steps' objectives, in nats per row; None without a step.

        Raises:
            NumericalError: training diverged, and may not go back once more.
        """
        if self.recovery.history.is_waiting:
            self._pass_over(chunk)
            return None
        epoch = self.current_epoch
        if self.averaging is not None:
            self.averaging.exchange()
        try:
            with self.stream, anomalies_as_errors():
                values = self._take_steps(chunk)
                at = next((k for k, value in enumerate(values) if not math.isfinite(value)), None)
                error = None if at is None else self._diverged(chunk, epoch, at)
        finally:
            if self.averaging is not None:
                self.averaging.exchange()
        self.note(values)
        if at is not None and error is not None:
            if not self.recovery.is_possible:
                raise error
            self._go_back(epoch + sum(end < at for end in chunk.epoch_ends))
        return {"loss": torch.tensor(sum(values) / len(values), dtype=torch.float64)}

    def _pass_over(self, chunk: Chunk) -> None:
        """Count the steps of a chunk without taking them."""
        before = self.global_step
        for _ in chunk.spans:
            self.schedule_step()
        for end in chunk.epoch_ends:
            count_epoch(self.trainer)
            self.begin_another_epoch(before + end + 1)
        count_steps(self.trainer, len(chunk.spans))

    def _go_back(self, epoch: int) -> None:
        """Return to the last good state, in an epoch counted from 0."""
        rows: Rows = self.trainer.datamodule.splits["train"]  # type: ignore[attr-defined]
        self.recovery.go_back(epoch, rows, self.optimizer, self.scheduler)
        self.step.forget()
        self.losses = (0.0, 0)
        # Other random numbers than those that led to divergence.
        number = f"{len(self.recovery.history.epochs)} of process {ranks.rank()}"
        self.stream = RandomStream(self.seed, f"steps after going back, {number}")

    def _take_steps(self, chunk: Chunk) -> list[float]:
        """Take the steps of a chunk; the objective on each batch before its step, in nats per row."""
        before, losses = self.global_step, list[Tensor]()
        wrapper, optimizer = self.optimizers(), self.optimizer
        for k, batch in enumerate(chunk.batches()):
            if self.is_plain:
                losses.append(self.step(batch, optimizer, optimizer, count=before + k))
            else:
                losses.append(self.step(batch, wrapper, optimizer, self.manual_backward, before + k))  # type: ignore[arg-type]
            self._average(before + k)
            self.schedule_step()
            if k in chunk.epoch_ends:
                count_epoch(self.trainer)
                self.begin_another_epoch(before + k + 1)
        if self.is_plain:
            count_steps(self.trainer, len(losses))
        self.rows_seen += ranks.world_size() * sum(size for _, size in chunk.spans)
        # All losses in one transfer: each would make the host wait for the device.
        return list(torch.stack(losses).tolist())

    def schedule_step(self) -> None:
        """Set the learning rate of the next optimiser step, where the scheduler goes by steps."""
        if self.scheduler is not None and self.is_scheduled_by_step:
            self.scheduler.step()

    def _diverged(self, chunk: Chunk, epoch: int, at: int) -> NumericalError:
        """The error for a chunk whose step number `at`, from 0, has an objective that is not finite."""
        batch = list(chunk.batches())[at]
        cause = not_finite(self.objective, batch.rows, batch.standardized)
        step = self.global_step - len(chunk.spans) + at + 1
        error = diverged(step, epoch + sum(end < at for end in chunk.epoch_ends), cause, self.step.clip_norm)
        if self.recovery.history.epochs:
            before = ", ".join(map(str, self.recovery.history.epochs))
            error.args = (f"{error}. It had gone back with half the learning rate in epoch {before}.",)
        return error

    def _average(self, step: int) -> None:
        """Update the average with the weights after a step, which is counted from 0 over all epochs."""
        if self.averaging is not None:
            epoch, first_step = self.place
            length = 1 / self.evaluation_schedule.num_steps(epoch + 1)
            self.averaging.update(epoch + (step - first_step + 1) * length, length)

    def note(self, losses: Sequence[float]) -> None:
        """Add the objectives of some steps, in nats per row, to `losses`."""
        total, number = self.losses
        for loss in losses:
            # One by one, so that the rounded sum does not depend on how many steps a chunk has.
            total += loss
        self.losses = (total, number + len(losses))

    def begin_another_epoch(self, num_steps: int) -> None:
        """Begin the next epoch without an evaluation, after `num_steps` steps in all."""
        self.place = (self.current_epoch, num_steps)
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau | StepScheduler):
            self.scheduler.step()

    def on_validation_model_zero_grad(self) -> None:
        """Do not set gradients to zero before an evaluation, as Lightning would: each step does so itself."""

    def on_validation_start(self) -> None:
        """Stop the clock of the epoch, and go back to a good state where the objective has exploded."""
        self.seconds = time.monotonic() - self.started
        total, number = self.losses
        if number and self.recovery.is_possible and self.recovery.is_exploded(total / number):
            self._go_back(self.current_epoch)

    def validation_step(self, block: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Add a block to the figures of its split."""
        self.evaluators[dataloader_idx].add(block)

    def on_validation_epoch_end(self) -> None:
        """Compute the figures from the sums, and show the NLL of each split to Lightning's callbacks."""
        penalty = float(self.objective.penalty().detach())
        self.figures, self.evaluated_step = {}, self.global_step
        for split, evaluator in zip(self.watched, self.evaluators, strict=True):
            if evaluator.is_empty:
                continue
            figures = evaluator.figures()
            figures |= {"penalty": penalty, "objective": figures["nll_nats"] + penalty / self.objective.population}
            self.figures[split] = figures
            shown = figures if self.is_monitored else {"nll_nats": figures["nll_nats"]}
            named = {f"{split}/{name}": torch.tensor(value) for name, value in shown.items()}
            self.trainer.callback_metrics.update(named)

    def on_validation_end(self) -> None:
        """Start the sum of losses anew, and keep the present state as a good one."""
        self.losses = (0.0, 0)
        if self.global_step == 0 and "train" in self.figures:
            self.recovery.start(self.figures["train"]["objective"])
        if self.recovery.most:
            self.recovery.keep(self.global_step, self.optimizer)

    @property
    def epochs_judged(self) -> int:
        """The number of epochs since the evaluation before, at the end of an epoch with an evaluation; else 0.

        It is 0, too, where the evaluation was not due by the schedule, as the one at the end of a training may be: a
        longer run would not have had it, and a resumed one has to go on as that would.
        """
        num_epochs = self.current_epoch + 1
        is_due = self.evaluated_step == self.global_step and self.evaluation_schedule.is_due(num_epochs)
        return self.evaluation_schedule.gap(num_epochs) if is_due else 0

    def on_train_epoch_end(self) -> None:
        """Step the scheduler, unless it goes by steps; `ReduceLROnPlateau` by the NLL of the last split evaluated.

        A callback that ends the training in the first process ends it in all of them.
        """
        if ranks.world_size() > 1:
            self.trainer.should_stop = ranks.decided(self.trainer.should_stop, self.device)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if self.epochs_judged:
                # Its patience is in epochs, but it only sees those with an evaluation.
                self.scheduler.num_bad_epochs += self.epochs_judged - 1
                self.scheduler.step(self.figures[self.watched[-1]]["nll_nats"])
        elif self.scheduler is not None and not self.is_scheduled_by_step:
            self.scheduler.step()


def _is_plain(trainer: lightning.Trainer) -> bool:
    """Whether Lightning has nothing to do within a step: on one device, and not in mixed precision."""
    known = (Precision, DoublePrecision)
    return isinstance(trainer.strategy, SingleDeviceStrategy) and type(trainer.precision_plugin) in known
