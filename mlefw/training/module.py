"""The one LightningModule: an objective, a step, and metrics."""

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
from mlefw.system.random_state import RandomStream
from mlefw.training.averaging import Averaging
from mlefw.training.evaluation_schedule import Cadence
from mlefw.training.evaluator import Evaluator
from mlefw.training.lightning_internals import count_epoch, count_steps, is_overridden
from mlefw.training.recovery import Recovery
from mlefw.training.step import Step, diverged

MakeOptimizer = Callable[[Any], Optimizer]
_WITHIN = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
_AROUND = tuple(f"on_validation_{name}" for name in ("batch_start", "batch_end", "epoch_start", "epoch_end"))
"""Hooks of a callback within a step, and within an evaluation."""

MakeScheduler = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


class LikelihoodModule(lightning.LightningModule):
    """Trains an objective by its step and evaluates it by its metrics; all else is in the parts.

    For callbacks to read, `figures` holds those of the latest evaluation by split, as plain numbers; `losses` the sum
    of what the steps since then have descended, each on its batch, and their number; `place` the epoch that is being
    trained, and the number of steps before it.

    With an `averaging` the objective holds the average of the weights, but for within `training_step`.

    Steps draw at random from a `stream` of their own, which a dropout does; what callbacks and a regime draw comes from
    another one, `around` them, and an evaluation has its own.
    """

    def __init__(
        self,
        objective: Objective,
        step: Step,
        make_optimizer: MakeOptimizer,
        make_scheduler: MakeScheduler | None,
        metrics: Mapping[str, Sequence[Metric]],
        cadence: Cadence,
        seed: int = 0,
        averaging: Averaging | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.averaging, self.recovery = averaging, recovery or Recovery(0, objective)
        self.objective, self.step, self.cadence = objective, step, cadence
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.watched = list(metrics)
        # A module list, so that the metrics travel to the device; it does not say what it holds.
        self.metrics: Any = nn.ModuleList(nn.ModuleList(members) for members in metrics.values())
        self.evaluators = [Evaluator(objective, members) for members in metrics.values()]
        self.seed = seed
        self.stream, self.around = RandomStream(seed, "steps"), RandomStream(seed, "around steps")
        self.figures: dict[str, dict[str, float]] = {}
        self.place, self.losses, self.evaluated_step = (0, 0), (0.0, 0), -1
        self.rows_seen, self.started, self.seconds = 0, time.monotonic(), 0.0
        self.is_plain = self.is_evaluated_plainly = False

    def on_fit_start(self) -> None:
        """Look once at what Lightning has to do within a step, and within an evaluation."""
        self.is_plain = _is_plain(self.trainer) and not _is_watched(self.trainer, _WITHIN)
        self.is_evaluated_plainly = _is_plain(self.trainer) and not _is_watched(self.trainer, _AROUND)

    def configure_optimizers(self) -> Any:
        """The optimiser over all trainable parameters, and its scheduler, stepped once an epoch."""
        optimizer = self.make_optimizer(p for p in self.objective.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def on_train_epoch_start(self) -> None:
        """Start the clock; a training that has gone back goes on from here, if this is not within an epoch."""
        if self.global_step == self.place[1]:
            self.recovery.history.is_waiting = False
        self.rows_seen, self.started = 0, time.monotonic()

    def training_step(self, chunk: Chunk, index: int) -> None:
        """One optimiser step for each batch of the chunk; none where training has gone back and waits."""
        if self.recovery.history.is_waiting:
            self._pass_over(chunk)
            return
        epoch = self.current_epoch
        if self.averaging is not None:
            self.averaging.exchange()
        try:
            with self.stream:
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

    def _pass_over(self, chunk: Chunk) -> None:
        """Count the steps of a chunk without taking them."""
        before = self.global_step
        for end in chunk.epoch_ends:
            count_epoch(self.trainer)
            self.begin_another_epoch(before + end + 1)
        count_steps(self.trainer, len(chunk.spans))

    def _go_back(self, epoch: int) -> None:
        """Return to the last good state."""
        rows: Rows = self.trainer.datamodule.splits["train"]  # type: ignore[attr-defined]
        self.recovery.go_back(epoch, rows, self._optimizer, self.lr_schedulers())
        self.step.forget()
        self.losses = (0.0, 0)
        number = f"{len(self.recovery.history.epochs)} of process {ranks.rank()}"
        self.stream = RandomStream(self.seed, f"steps after going back, {number}")

    @property
    def _optimizer(self) -> Optimizer:
        """The optimiser without Lightning's wrapper."""
        optimizer: Optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        return optimizer

    def _take_steps(self, chunk: Chunk) -> list[float]:
        """The steps of a chunk, and the objective before each of them."""
        before, losses = self.global_step, list[Tensor]()
        wrapper, optimizer = self.optimizers(), self._optimizer
        for k, batch in enumerate(chunk.batches()):
            if self.is_plain:
                losses.append(self.step(batch, optimizer, optimizer, count=before + k))
            else:
                losses.append(self.step(batch, wrapper, optimizer, self.manual_backward, before + k))  # type: ignore[arg-type]
            self._average(before + k)
            if k in chunk.epoch_ends:
                count_epoch(self.trainer)
                self.begin_another_epoch(before + k + 1)
        if self.is_plain:
            count_steps(self.trainer, len(losses))
        self.rows_seen += ranks.world_size() * sum(size for _, size in chunk.spans)
        values: list[float] = torch.stack(losses).tolist()
        return values

    def _diverged(self, chunk: Chunk, epoch: int, at: int) -> NumericalError:
        """What is to be said of a step of a chunk, just taken, whose objective is not finite."""
        batch = list(chunk.batches())[at]
        cause = not_finite(self.objective, batch.rows, batch.standardized)
        step = self.global_step - len(chunk.spans) + at + 1
        error = diverged(step, epoch + sum(end < at for end in chunk.epoch_ends), cause, self.step.clip_norm)
        if self.recovery.history.epochs:
            before = ", ".join(map(str, self.recovery.history.epochs))
            error.args = (f"{error}. It had gone back with half the learning rate in epoch {before}.",)
        return error

    def _average(self, step: int) -> None:
        """Take the weights after a step, counted from 0 over all epochs, into the average."""
        if self.averaging is not None:
            epoch, first_step = self.place
            length = 1 / self.cadence.num_steps(epoch + 1)
            self.averaging.update(epoch + (step - first_step + 1) * length, length)

    def note(self, losses: Sequence[float]) -> None:
        """Add what some steps have descended."""
        total, number = self.losses
        for loss in losses:
            # One by one: the sum does not depend on how many came together.
            total += loss
        self.losses = (total, number + len(losses))

    def begin_another_epoch(self, num_steps: int) -> None:
        """Go on without an evaluation, after so many steps in all."""
        self.place = (self.current_epoch, num_steps)
        scheduler = self.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()  # type: ignore[union-attr]

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients: the step forgets its own."""

    def on_validation_start(self) -> None:
        """Stop the clock of the epoch before evaluation, and go back first where the steps have led too far."""
        self.seconds = time.monotonic() - self.started
        total, number = self.losses
        if number and self.recovery.is_possible and self.recovery.is_exploded(total / number):
            self._go_back(self.current_epoch)

    def validation_step(self, block: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Add a block to the figures of its split."""
        self.evaluators[dataloader_idx].add(block)

    def on_validation_epoch_end(self) -> None:
        """Turn the sums into figures, and let Lightning's other callbacks have the NLL of each split."""
        penalty = float(self.objective.penalty().detach())
        self.figures, self.evaluated_step = {}, self.global_step
        for split, evaluator in zip(self.watched, self.evaluators, strict=True):
            if evaluator.is_empty:
                continue
            figures = evaluator.figures()
            figures |= {"penalty": penalty, "objective": figures["nll_nats"] + penalty / self.objective.population}
            self.figures[split] = figures
            self.trainer.callback_metrics[f"{split}/nll_nats"] = torch.tensor(figures["nll_nats"])

    def on_validation_end(self) -> None:
        """Count losses anew, and keep a state that is good."""
        self.losses = (0.0, 0)
        if self.global_step == 0 and "train" in self.figures:
            self.recovery.start(self.figures["train"]["objective"])
        if self.recovery.most:
            self.recovery.keep(self.global_step, self._optimizer)

    @property
    def epochs_judged(self) -> int:
        """At the end of an epoch, how many epochs its evaluation speaks of; none where there was none, or none was due:
        one at the end of a training tells of a run that may go on as if it had not been.
        """
        num_epochs = self.current_epoch + 1
        is_due = self.evaluated_step == self.global_step and self.cadence.is_due(num_epochs)
        return self.cadence.gap(num_epochs) if is_due else 0

    def on_train_epoch_end(self) -> None:
        """Step the scheduler: on the NLL of the last watched split, where it asks for one and there is a new one."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            if self.epochs_judged:
                # Its patience counts epochs, evaluated or not.
                scheduler.num_bad_epochs += self.epochs_judged - 1
                scheduler.step(self.figures[self.watched[-1]]["nll_nats"])
        elif scheduler is not None:
            scheduler.step()  # type: ignore[union-attr]


def _is_plain(trainer: lightning.Trainer) -> bool:
    """Whether Lightning adds nothing to a step, and so only costs: on one device, and not in mixed precision."""
    known = (Precision, DoublePrecision)
    return isinstance(trainer.strategy, SingleDeviceStrategy) and type(trainer.precision_plugin) in known


def _is_watched(trainer: lightning.Trainer, hooks: Sequence[str]) -> bool:
    """Whether a callback has one of the hooks."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(is_overridden(hook, callback, lightning.Callback) for callback in callbacks for hook in hooks)
