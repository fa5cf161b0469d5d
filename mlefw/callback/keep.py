"""Keeps the best and the last state of a run on disk."""

import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from mlefw.errors import NumericalError, Stopped
from mlefw.interrupt import raise_pending
from mlefw.module import LikelihoodModule

_DIVERGED = 1e12
"""No weight of a model that works on standardised features comes near it."""


class KeepCheckpoints(Checkpoint):
    """`best.ckpt`: least NLL on the validation rows (without them: the latest state); `last.ckpt`: to resume from.

    The state before training takes part, as epoch -1, where the trainer evaluates it (`num_sanity_val_steps: -1`).

    Both are written at the end of an epoch, but not more often than every `min_seconds`, and always at the end of the
    fit; between writes the best state is held in memory. A state that is not finite is never kept.
    """

    def __init__(self, folder: Path, min_seconds: float = 5.0, every_steps: int = 0) -> None:
        self.folder, self.min_seconds, self.every_steps = folder, min_seconds, every_steps
        self.best_value, self.best_epoch, self.best_step = float("inf"), -1, 0
        self.best_state: dict[str, torch.Tensor] = {}
        self.written = time.monotonic()
        self.best_is_written = True
        self.last_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on comparing."""
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "best_state": self.best_state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_sanity_check_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Let the state before training, as epoch -1, be the best one until training finds a better."""
        assert isinstance(module, LikelihoodModule)
        self._compare(module, -1, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Compare the state of this epoch with the best one, and write when it is time.

        As a `Checkpoint` this runs after the module's own hook, so that the scheduler's step is in what is saved.
        """
        assert isinstance(module, LikelihoodModule)
        check_finite(module)
        self._compare(module, trainer.current_epoch, trainer.global_step)
        if time.monotonic() - self.written >= self.min_seconds:
            self._write(trainer)

    def _compare(self, module: LikelihoodModule, epoch: int, step: int) -> None:
        watched = module.figures.get("validation")
        value = watched["nll_nats"] if watched is not None else -float(epoch)
        # A first state is kept even with an infinite NLL: some finite weights are better than none.
        if value < self.best_value or not self.best_state:
            self.best_value, self.best_epoch, self.best_step = value, epoch, step
            self.best_state = {name: t.detach().clone() for name, t in module.objective.state_dict().items()}
            self.best_is_written = False

    def on_train_batch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: Any) -> None:
        """Write `last.ckpt` within an epoch, too, every `every_steps` steps."""
        if self.every_steps and trainer.global_step - self.last_steps >= self.every_steps:
            self.last_steps = trainer.global_step
            if time.monotonic() - self.written >= min(1.0, self.min_seconds):
                self._write_last(trainer)
        raise_pending()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Write both once more where a signal ended the training."""
        if isinstance(exception, Stopped):
            self._write(trainer)

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write both, whatever the cadence."""
        self._write(trainer)

    def restore_best(self, module: LikelihoodModule) -> None:
        """Put the best state back into the objective."""
        if self.best_state:
            module.objective.load_state_dict(self.best_state)

    def _write_last(self, trainer: lightning.Trainer) -> LikelihoodModule:
        """Write `last.ckpt`, whatever asked for it: an epoch, a step, a signal."""
        module = trainer.lightning_module
        assert isinstance(module, LikelihoodModule)
        check_finite(module)
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.written = time.monotonic()
        return module

    def _write(self, trainer: lightning.Trainer) -> None:
        module = self._write_last(trainer)
        if not self.best_is_written:
            now = {name: t.detach().clone() for name, t in module.objective.state_dict().items()}
            self.restore_best(module)
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
            module.objective.load_state_dict(now)
            self.best_is_written = True
            self.written = time.monotonic()


def check_finite(module: LikelihoodModule) -> None:
    """Refuse weights that are not finite, or finite by gradient clipping alone.

    Raises:
        NumericalError: naming the tensor.
    """
    for name, p in module.objective.named_parameters():
        if not bool((p.abs() < _DIVERGED).all()):
            raise NumericalError(
                f"training diverged: {name} is beyond {_DIVERGED:g} or not a number after step {module.global_step} "
                f"(epoch {module.current_epoch}). Try a smaller optimizer.lr, or step.clip_norm=1"
            )
