"""Saves where a training is with each checkpoint, and lets a resumed run go on from there."""

from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping

from mlefw.callback.converged import StopWhenConverged
from mlefw.callback.patience import StopWithoutProgress
from mlefw.callback.stored_state import Content, check_form, check_optimizer, naming_the_checkpoint
from mlefw.configuration.record import typed
from mlefw.distributed import ranks, sharding
from mlefw.errors import UsageError
from mlefw.rows.batch import Chunk
from mlefw.system.file_system import invalidate
from mlefw.system.own_folder import replace_links
from mlefw.system.random_state import RandomStream
from mlefw.training.datamodule import RowsModule
from mlefw.training.lightning_internals import set_place, tell_length, tell_loggers
from mlefw.training.module import LikelihoodModule
from mlefw.training.recovery import GoodState, History
from mlefw.training.trainer_view import TrainerView

KEY = "resume"
"""The key of the section with the place, the random states and the figures in a checkpoint."""


@dataclass(frozen=True)
class Place:
    """The section of a checkpoint that says where a training was.

    Attributes:
        epoch: number of complete epochs.
        first_step: number of steps taken before the epoch under way.
        step: number of steps taken.
        figures: the latest ones by split and name; NaN for a figure that is not defined.
        losses: the sum of step losses since the last evaluation, and their number.
        random: state of the random stream of the steps.
        around: state of the random stream of callbacks and batches; None in files of earlier versions, where `random`
            served both.
        weights: the weights beside their average, which the objective holds; empty without one and before a step.
        recovery: how often training has gone back to an earlier state, and that state.
    """

    epoch: int
    first_step: int
    step: int
    figures: dict[str, dict[str, Real]]
    losses: tuple[Real, int]
    random: Content
    around: Content | None = None
    weights: list[torch.Tensor] = field(default_factory=list)
    recovery: History = field(default_factory=History)

    @classmethod
    def of(cls, content: Content) -> "Place":
        """Read the section from the content of a checkpoint.

        Raises:
            UsageError: a part is missing or not of its type, or the numbers contradict each other.
        """
        found = typed(cls, content.get(KEY), KEY)
        if not 0 <= found.first_step <= found.step or found.epoch < 0:
            raise UsageError(f"{KEY}: epoch {found.epoch}, steps {found.first_step} to {found.step}: expected in order")
        return found


class Resumable(lightning.Callback):
    """Adds the place in training, the random states and the latest figures to each checkpoint, and restores a run.

    The place is the epoch and the number of steps taken in it. Lightning's own record of its place is not used, since
    it depends on the hook from which it was saved. This callback has to come first among all.

    Args:
        content: of the checkpoint to go on from; None for a new run.
        outdated: a file that is wrong as soon as training goes on, and is removed then.
    """

    def __init__(self, content: Content | None = None, outdated: Path | None = None) -> None:
        self.content, self.outdated = content, outdated

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Restore weights, optimiser, scheduler, callbacks, and the place.

        Raises:
            UsageError: the checkpoint holds a state that one of them cannot take up.
        """
        if self.content is None:
            return
        # A member of a group of runs begins anew: what goes on from a checkpoint is trained alone.
        assert isinstance(trainer, lightning.Trainer)
        with naming_the_checkpoint():
            self._restore(trainer, module, self.content)

    def _restore(self, trainer: lightning.Trainer, module: lightning.LightningModule, content: Content) -> None:
        assert isinstance(module, LikelihoodModule)
        assert isinstance(trainer.datamodule, RowsModule)  # type: ignore[attr-defined]
        place = content[KEY]
        weights = objective_state(content)
        sharding.load(module.objective, weights)
        history = Place.of(content).recovery
        _restore_weights(module, place.get("weights", []), history.good)
        pairs = zip(trainer.optimizers, content["optimizer_states"], strict=True)
        content = {**content, "optimizer_states": [sharding.with_own_kernels(*pair) for pair in pairs]}
        for optimizer, state in zip(trainer.optimizers, content["optimizer_states"], strict=True):
            check_form("the setting of the optimiser", optimizer.state_dict()["param_groups"], state["param_groups"])
        trainer.strategy.load_optimizer_state_dict(content)
        for optimizer in trainer.optimizers:
            check_optimizer(optimizer)
        for scheduler, state in zip(trainer.lr_scheduler_configs, content["lr_schedulers"], strict=True):
            check_form("the state of the scheduler", scheduler.scheduler.state_dict(), state)
            scheduler.scheduler.load_state_dict(state)
        self._restore_callbacks(trainer, content["callbacks"])
        module.recovery.restore(history, place["step"], trainer.optimizers[0])
        module.losses = tuple(place["losses"])
        module.figures = {split: dict(figures) for split, figures in place["figures"].items()}
        module.place = epoch, first_step = place["epoch"], place["first_step"]
        trainer.datamodule.start = (epoch, place["step"] - first_step)  # type: ignore[attr-defined]
        set_place(trainer, epoch, place["step"])

    def on_train_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Restore the random states, at the last moment before they are used."""
        assert isinstance(module, LikelihoodModule)
        if self.content is not None:
            place = self.content[KEY]
            with naming_the_checkpoint():
                module.stream.state = place["random"]
                module.around.state = place.get("around") or place["random"]
                # A state that no generator takes is found here, and not in the middle of training.
                with module.stream, module.around:
                    pass
            self.content = None
            if self.outdated is not None:
                invalidate(replace_links(self.outdated))
        if ranks.rank() > 0:
            # Units are dropped independently of those of other processes.
            module.stream = RandomStream(module.seed, f"steps of process {ranks.rank()} from {trainer.global_step}")

    def on_train_epoch_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Note the step at which an epoch begins; that of a resumed epoch is known from the checkpoint."""
        assert isinstance(module, LikelihoodModule)
        if trainer.current_epoch != module.place[0]:
            module.place = (trainer.current_epoch, trainer.global_step)
        if isinstance(trainer, lightning.Trainer) and (length := _length(trainer)) is not None:
            tell_length(trainer, length)

    def on_train_batch_end(self, trainer: TrainerView, module: Any, outputs: Any, chunk: Chunk, index: int) -> None:
        """Let what callbacks log stand at the step that was taken last."""
        if isinstance(trainer, lightning.Trainer):
            tell_loggers(trainer, len(chunk.spans))

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Set the place to the start of the next epoch."""
        assert isinstance(module, LikelihoodModule)
        module.place = (trainer.current_epoch + 1, trainer.global_step)

    def on_save_checkpoint(self, trainer: TrainerView, module: lightning.LightningModule, checkpoint: Content) -> None:
        """Add the section with the place."""
        assert isinstance(module, LikelihoodModule)
        checkpoint[KEY] = {
            "epoch": module.place[0],
            "first_step": module.place[1],
            "step": trainer.global_step,
            "figures": module.figures,
            "losses": list(module.losses),
            "random": module.stream.state,
            "around": module.around.state,
            "weights": [] if module.averaging is None else module.averaging.state,
            "recovery": module.recovery.stored(trainer.global_step),
        }

    def _restore_callbacks(self, trainer: lightning.Trainer, states: Content) -> None:
        """Restore each callback of which there is a state, and stop where one of them has ended the training."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            patience = callback.patience if isinstance(callback, StopWithoutProgress | EarlyStopping) else None
            if callback.state_key in states:
                if type(callback).load_state_dict.__module__.partition(".")[0] in ("mlefw", "lightning"):
                    what = f"the state of {type(callback).__name__}"
                    check_form(what, callback.state_dict(), states[callback.state_key])
                # What a plugin's own state looks like, such as a dict that has grown, only the plugin knows.
                callback.load_state_dict(states[callback.state_key])
            if patience is not None:
                # A longer patience may be asked for, and lets the run go on.
                callback.patience = patience
                trainer.should_stop |= callback.wait_count >= patience
            if isinstance(callback, StopWhenConverged):
                trainer.should_stop |= callback.converged


def _length(trainer: lightning.Trainer) -> int | None:
    """The number of batches in what Lightning takes for an epoch; None where it gets several at a time."""
    rows: RowsModule = trainer.datamodule  # type: ignore[attr-defined]
    return rows.num_steps(trainer.current_epoch) if rows.chunk == 1 else None


def _restore_weights(module: LikelihoodModule, weights: list[torch.Tensor], good: GoodState | None) -> None:
    """Take up the weights that are kept beside their average, and check them and the state to go back to.

    Raises:
        UsageError: shapes are not those of the objective, or a value is not finite.
    """
    averaged = [] if module.averaging is None else module.averaging.tensors
    held = [(averaged, weights)] + (
        [] if good is None else [(module.recovery.tensors, good.objective), (averaged, good.weights)]
    )
    for tensors, stored in held:
        if stored:
            check_form("the weights beside the objective", tensors, stored)
        if not all(bool(tensor.isfinite().all()) for tensor in stored):
            raise UsageError("the checkpoint is damaged: weights beside the objective hold a value that is not finite")
    if module.averaging is not None and weights:
        module.averaging.restore(weights)


def objective_state(content: Content) -> Content:
    """The state of the objective in the content of a checkpoint: tensors by their names."""
    prefix = "objective."
    return {
        name.removeprefix(prefix): value
        for name, value in content["state_dict"].items()
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, torch.Tensor)
    }
