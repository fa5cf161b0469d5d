"""What a resumed run goes on from: saved with each checkpoint, and taken up again."""

from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping

from mlefw.callback.converged import StopWhenConverged
from mlefw.callback.stored_state import Content, check_form, check_optimizer, taking_up
from mlefw.configuration.record import typed
from mlefw.distributed import ranks
from mlefw.errors import UsageError
from mlefw.system.file_system import invalidate
from mlefw.system.own_folder import replace_links
from mlefw.system.random_state import RandomStream
from mlefw.training.datamodule import RowsModule
from mlefw.training.lightning_internals import set_place
from mlefw.training.module import LikelihoodModule
from mlefw.training.recovery import GoodState, History

KEY = "resume"
"""Of the section in a checkpoint."""


@dataclass(frozen=True)
class Place:
    """Where a run was, as its checkpoint has it.

    Attributes:
        epoch: complete ones; `first_step` is that with which the one under way began.
        step: taken so far.
        figures: the latest of each split by name; one that is not defined is not a number.
        losses: the sum of step losses since the last evaluation, and their number.
        random: where the random stream of the steps is.
        around: where that of what lies around them is; None in files of earlier versions, which had one for both.
        weights: from which the next step starts, where the objective holds their average; empty before the first step.
        recovery: how often training has gone back, and where to.
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
        """That of the content of a checkpoint.

        Raises:
            UsageError: a part is missing, or is none.
        """
        found = typed(cls, content.get(KEY), KEY)
        if not 0 <= found.first_step <= found.step or found.epoch < 0:
            raise UsageError(f"{KEY}: epoch {found.epoch}, steps {found.first_step} to {found.step}: expected in order")
        return found


class Resumable(lightning.Callback):
    """Saves the place in the row order, the random states and the latest figures; restores them and all the rest.

    Lightning's own record of where it was depends on the hook from which it was saved, so it is not used: the place is
    the epoch and the number of steps taken in it. It has to come first among the callbacks.

    Args:
        content: of the checkpoint to go on from; None for a new run.
        outdated: a file that no longer holds once training goes on: it is removed then.
    """

    def __init__(self, content: Content | None = None, outdated: Path | None = None) -> None:
        self.content, self.outdated = content, outdated

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Restore weights, optimiser, scheduler, callbacks, and the place.

        Raises:
            UsageError: the checkpoint holds what they cannot take up.
        """
        if self.content is None:
            return
        with taking_up():
            self._restore(trainer, module, self.content)

    def _restore(self, trainer: lightning.Trainer, module: lightning.LightningModule, content: Content) -> None:
        assert isinstance(module, LikelihoodModule)
        assert isinstance(trainer.datamodule, RowsModule)  # type: ignore[attr-defined]
        place = content[KEY]
        weights = objective_state(content)
        module.objective.load_state_dict(weights)
        history = Place.of(content).recovery
        _restore_weights(module, place.get("weights", []), history.good)
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

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Restore the random states, at the last moment before they are used."""
        assert isinstance(module, LikelihoodModule)
        if self.content is not None:
            place = self.content[KEY]
            with taking_up():
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

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Note the step at which an epoch begins; that of a resumed epoch is known."""
        assert isinstance(module, LikelihoodModule)
        if trainer.current_epoch != module.place[0]:
            module.place = (trainer.current_epoch, trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """From here on the place is the start of the next epoch."""
        assert isinstance(module, LikelihoodModule)
        module.place = (trainer.current_epoch + 1, trainer.global_step)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: Content
    ) -> None:
        """Add the section."""
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
        """Restore each callback that was there, and stop where one of them has ended the training."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            patience = callback.patience if isinstance(callback, EarlyStopping) else None
            if callback.state_key in states:
                check_form(f"the state of {type(callback).__name__}", callback.state_dict(), states[callback.state_key])
                callback.load_state_dict(states[callback.state_key])
            if isinstance(callback, EarlyStopping) and patience is not None:
                # A longer patience may be asked for, and lets the run go on.
                callback.patience = patience
                trainer.should_stop |= callback.wait_count >= patience
            if isinstance(callback, StopWhenConverged):
                trainer.should_stop |= callback.converged


def _restore_weights(module: LikelihoodModule, weights: list[torch.Tensor], good: GoodState | None) -> None:
    """Take up the weights beside their average, and hold those of a state to go back to to the same form.

    Raises:
        UsageError: they are not those of this objective, or not finite.
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
