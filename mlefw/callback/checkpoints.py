"""Keeps the best and the last state of a training on disk."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from mlefw.callback.stored_state import Content
from mlefw.distributed import ranks, sharding
from mlefw.errors import NumericalError
from mlefw.system.signals import is_pending, raise_pending, take_over
from mlefw.system.torch_internals import norms
from mlefw.training.module import LikelihoodModule
from mlefw.training.recovery import MAX_WEIGHT
from mlefw.training.step import divergence_advice
from mlefw.training.trainer_view import TrainerView


class KeepCheckpoints(Checkpoint):
    """`best.ckpt`: least NLL on the validation rows (without them: the latest state); `last.ckpt`: to resume from.

    The state before training takes part, as epoch -1, where the trainer evaluates it (`num_sanity_val_steps: -1`).

    Both are written at the end of an epoch, but not more often than every `min_seconds`, and always at the end of
    training; between writes the best state is held in memory. A state that is not finite is never kept.

    Where processes share the parameters, each has one of these with its share of the best state. All of them gather the
    tensors of a file, which the first process decides on and writes.

    Args:
        folder: directory of both files.
        min_seconds: least time between writes.
        every_steps: write within epochs, too (0: at their end only).
        before: called before each write, so that no log on disk is behind a checkpoint.
        together: whether processes share the parameters.
    """

    def __init__(
        self,
        folder: Path,
        min_seconds: float = 5.0,
        every_steps: int = 0,
        before: Callable[[TrainerView], None] | None = None,
        together: bool = False,
    ) -> None:
        self.before, self.together = before, together
        self.folder, self.min_seconds, self.every_steps = folder, min_seconds, every_steps
        self.best_value, self.best_epoch, self.best_step = float("inf"), -1, 0
        self.best_state: dict[str, torch.Tensor] = {}
        self.written = time.monotonic()
        self.best_is_written = True
        self.last_steps, self.first_step, self.written_step = 0, 0, -1

    def state_dict(self) -> Content:
        """The best state so far and its NLL."""
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "best_state": self.best_state,
        }

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        for name in self.state_dict():
            setattr(self, name, state_dict[name])
        # A kill between the two files may have left an older or a newer one.
        self.best_is_written = False

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Note the step of a resumed run, whose state is on disk already."""
        self.last_steps = self.first_step = trainer.global_step
        self.written_step = trainer.global_step or -1

    def on_sanity_check_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Take the signals back from Lightning, which would end at SIGTERM wherever it is."""
        take_over()

    def on_train_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Take the signals back where there was no evaluation before training."""
        take_over()

    def on_sanity_check_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Let the state before training, as epoch -1, be the best one until training finds a better."""
        assert isinstance(module, LikelihoodModule)
        self._compare(module, -1, 0)

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Compare the state of this epoch with the best one, and write when it is time.

        As a `Checkpoint` this runs after the module's own hook, so that the scheduler's step is in what is saved.
        """
        assert isinstance(module, LikelihoodModule)
        check_finite(module)
        self._compare(module, trainer.current_epoch, trainer.global_step)
        is_due = time.monotonic() - self.written >= self.min_seconds or is_pending()
        if self._decided(is_due, module):
            self._write(trainer, module)
        self._stop_if_asked()

    def _compare(self, module: LikelihoodModule, epoch: int, step: int) -> None:
        if "validation" in module.watched and not module.evaluation_schedule.is_due(epoch + 1):
            # A resumed run goes past this epoch without an evaluation, and is to end with the same state.
            return
        watched = module.figures.get("validation")
        value = watched["nll_nats"] if watched is not None else -float(epoch)
        # A first state is kept even with an infinite NLL: some finite weights are better than none. NaN is no better,
        # and nothing would ever be less than it.
        value = math.inf if math.isnan(value) else value
        if value < self.best_value or not self.best_state:
            self.best_value, self.best_epoch, self.best_step = value, epoch, step
            self.best_state = {name: t.detach().clone() for name, t in module.objective.state_dict().items()}
            self.best_is_written = False

    def on_train_batch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: Any) -> None:
        """Write within an epoch, too: every `every_steps` steps, and where a limit or a signal ends the training.

        After the last batch of an epoch its end is waited for: a checkpoint is either within an epoch or after it.
        """
        if trainer.is_last_batch:
            return
        is_due = self.every_steps and trainer.global_step - self.last_steps >= self.every_steps
        if is_due:
            self.last_steps = trainer.global_step
            is_due = time.monotonic() - self.written >= min(1.0, self.min_seconds)
        assert isinstance(module, LikelihoodModule)
        is_last = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if self._decided(bool(is_due) or is_pending() or is_last, module):
            self._write(trainer, module)
        self._stop_if_asked()

    def on_exception(self, trainer: TrainerView, module: lightning.LightningModule, exception: BaseException) -> None:
        """Where training diverged, the best state is still a good one: it goes to disk."""
        assert isinstance(module, LikelihoodModule)
        if isinstance(exception, NumericalError):
            self._write_best(trainer, module)

    def on_fit_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Write both files, however short the time since the last write, if anything was trained."""
        assert isinstance(module, LikelihoodModule)
        if trainer.global_step != self.first_step or self.written_step < 0:
            self._write(trainer, module)

    def restore_best(self, module: LikelihoodModule) -> None:
        """Put the best state back into the objective."""
        if self.best_state:
            sharding.load(module.objective, self.best_state)

    def _decided(self, choice: bool, module: LikelihoodModule) -> bool:
        """The choice of this process, or of the first one where all of them have to do the same."""
        return ranks.decided(choice, module.device) if self.together else choice

    def _stop_if_asked(self) -> None:
        """Raise `Stopped` if a signal has come; processes that share the parameters end with the first one."""
        if not self.together or ranks.rank() == 0:
            raise_pending()

    def _write(self, trainer: TrainerView, module: LikelihoodModule) -> None:
        """Write each of the two files whose state on disk is out of date."""
        check_finite(module)
        self._write_best(trainer, module)
        # An epoch that a limit has cut short keeps the checkpoint from within it: a resumed run goes on there.
        if trainer.global_step != self.written_step:
            if self.before is not None:
                self.before(trainer)
            trainer.save_checkpoint(self.folder / "last.ckpt")
            self.written_step = trainer.global_step
        self.written = time.monotonic()

    def _write_best(self, trainer: TrainerView, module: LikelihoodModule) -> None:
        if not self.best_is_written and self.best_state:
            now = {name: t.detach().clone() for name, t in module.objective.state_dict().items()}
            self.restore_best(module)
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
            sharding.load(module.objective, now)
            self.best_is_written = True


def check_finite(module: LikelihoodModule) -> None:
    """Refuse weights that are not finite, or so large that clipped gradients alone have kept them finite.

    Raises:
        NumericalError: a weight is; the message names the tensor.
    """
    parameters = {name: p.detach() for name, p in module.objective.named_parameters() if p.numel()}
    if module.objective.sharded:
        sizes = [sharding.largest(p) for p in parameters.values()]
    else:
        sizes = norms(list(parameters.values()), float("inf"))
    largest = torch.stack(sizes).tolist()
    for name, value in zip(parameters, largest, strict=True):
        if not value < MAX_WEIGHT:
            raise NumericalError(
                f"training diverged: {name} is beyond {MAX_WEIGHT:g} or not a number after step {module.global_step} "
                f"(epoch {module.current_epoch}). "
                f"{divergence_advice(module.step.clip_norm)}"
            )
