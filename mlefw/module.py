"""The one LightningModule: an objective, a step, and metrics."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins import DoublePrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mlefw import ranks
from mlefw.errors import NumericalError
from mlefw.metric.base import Metric
from mlefw.objective import Objective, not_finite
from mlefw.rows import Batch, Chunk
from mlefw.step import Step

MakeOptimizer = Callable[[Any], Optimizer]
_WITHIN = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
"""Hooks of a callback within a step."""

MakeScheduler = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


class LikelihoodModule(lightning.LightningModule):
    """Trains an objective by its step and evaluates it by its metrics; all else is in the parts.

    `figures` holds the latest values of each watched split, as plain numbers, for callbacks to read.
    """

    def __init__(
        self,
        objective: Objective,
        step: Step,
        make_optimizer: MakeOptimizer,
        make_scheduler: MakeScheduler | None,
        metrics: Mapping[str, Sequence[Metric]],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective, self.step = objective, step
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.watched = list(metrics)
        # A module list, so that the metrics travel to the device; it does not say what it holds.
        self.metrics: Any = nn.ModuleList(nn.ModuleList(members) for members in metrics.values())
        self.figures: dict[str, dict[str, float]] = {}
        self.rows_seen, self.started = 0, time.monotonic()
        self.is_plain = False

    def on_fit_start(self) -> None:
        """Look once at what Lightning has to do within a step."""
        self.is_plain = _is_plain(self.trainer)

    def configure_optimizers(self) -> Any:
        """The optimiser over all trainable parameters, and its scheduler, stepped once an epoch."""
        optimizer = self.make_optimizer(p for p in self.objective.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def on_train_epoch_start(self) -> None:
        """Start the clock of the epoch."""
        self.rows_seen, self.started = 0, time.monotonic()

    def training_step(self, chunk: Chunk, index: int) -> None:
        """One optimiser step for each batch of the chunk."""
        before, batches = self.global_step, list(chunk.batches())
        wrapper = self.optimizers()
        optimizer: Optimizer = wrapper.optimizer  # type: ignore[union-attr]
        if self.is_plain:
            losses = [self.step(batch, optimizer, optimizer, count=before + k) for k, batch in enumerate(batches)]
            _count(self.trainer, len(losses))
        else:
            losses = [
                self.step(batch, wrapper, optimizer, self.manual_backward, self.global_step)  # type: ignore[arg-type]
                for batch in batches
            ]
        finite = torch.isfinite(torch.stack(losses)).tolist()
        if not all(finite):
            at, batch = before + finite.index(False) + 1, batches[finite.index(False)]
            cause = not_finite(self.objective, batch.rows, batch.standardized)
            raise NumericalError(
                f"training diverged: the objective was not finite at step {at} (epoch {self.current_epoch})"
                f"{cause and f'; after it {cause}'}. Try a smaller optimizer.lr, or step.clip_norm=1"
            )
        self.rows_seen += ranks.count() * sum(batch.rows.num_rows for batch in batches)

    def on_validation_start(self) -> None:
        """Stop the clock of the epoch before evaluation."""
        self.seconds = time.monotonic() - self.started

    def validation_step(self, block: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Add a block to the metrics of its split."""
        rows = block.rows
        if rows.num_rows == 0:
            return
        distribution = self.objective.head(self.objective.eta(rows.x, rows.offset, block.standardized))
        for metric in self.metrics[dataloader_idx]:
            metric.update(distribution, rows.y, rows.weight)

    def on_validation_epoch_end(self) -> None:
        """Turn the sums into figures, and hand the monitored one to Lightning."""
        penalty = self.objective.penalty()
        ranks.add([state for members in self.metrics for metric in members for state in metric.metric_state.values()])
        for split, members in zip(self.watched, self.metrics, strict=True):
            values: dict[str, Tensor] = {}
            for metric in members:
                values |= metric.compute()
                metric.reset()
            values |= {"penalty": penalty, "objective": values["nll_nats"] + penalty / self.objective.population}
            numbers = torch.stack([value.detach().double() for value in values.values()]).tolist()
            self.figures[split] = dict(zip(values, numbers, strict=True))
            self.log(f"{split}/nll_nats", self.figures[split]["nll_nats"], add_dataloader_idx=False, logger=False)

    def on_train_epoch_end(self) -> None:
        """Step the scheduler, on the NLL of the last watched split where it asks for one and there is a new one."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            if (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1) == 0:
                scheduler.step(self.figures[self.watched[-1]]["nll_nats"])
        elif scheduler is not None:
            scheduler.step()  # type: ignore[union-attr]


def _is_plain(trainer: lightning.Trainer) -> bool:
    """Whether Lightning adds nothing to a step: one device, no mixed precision, nobody who looks inside.

    Its wrapper then only costs, as much as half a step.
    """
    watching = any(
        is_overridden(hook, callback, lightning.Callback)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        for hook in _WITHIN
    )
    return (
        isinstance(trainer.strategy, SingleDeviceStrategy)
        and type(trainer.precision_plugin) in (Precision, DoublePrecision)
        and not watching
    )


def _count(trainer: lightning.Trainer, num_steps: int) -> None:
    """Add steps to the trainer's `global_step`, as its wrapper of an optimiser does one by one."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += num_steps
        tracker.completed += num_steps
