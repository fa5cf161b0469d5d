"""One run of a group that is trained together: its callbacks, its checkpoints, and its place in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger

from mlefw.callback.stored_state import Content
from mlefw.command.train import Begun
from mlefw.run import fitting, lightning_parts, trainer
from mlefw.run.archive import Archive
from mlefw.score.yardstick import Yardstick
from mlefw.training.module import LikelihoodModule
from mlefw.training.recovery import Recovery


@dataclass(eq=False)
class Member:
    """A run whose steps and evaluations are computed with those of other runs; all else it does as a run alone does.

    It counts its own epochs and steps, calls its callbacks in Lightning's order, and is their `TrainerView`. Callbacks
    from outside mlefw may ask more of a trainer: a job that has one is trained alone (`signature.py`).

    Attributes:
        begun: settings, rows and directory.
        yardstick: the exact estimates by which each epoch is measured.
        baseline: content of `baseline.json`, if there is one.
        watch: the callbacks that every run has.
        callbacks: these and those of the settings, in the order in which they are called.
        loggers: where figures are logged.
        module: the network with its own optimiser and scheduler.
        max_epochs: after which training ends.
        current_epoch: in training, from 0; at the end the number of complete epochs.
        global_step: number of steps taken.
        sanity_checking: whether the evaluation under way is the one before the first step.
        should_stop: whether a callback asks for the end after the present epoch.
        has_ended: whether training has come to its end.
        error: what has ended it before.
        store: brings the state of its optimiser and of its averaged weights, which a group computes for all members at
            once, into the module.
    """

    begun: Begun
    yardstick: Yardstick
    baseline: Content | None
    watch: fitting.RunCallbacks
    callbacks: Sequence[lightning.Callback]
    loggers: list[Logger]
    module: LikelihoodModule
    max_epochs: int
    current_epoch: int = 0
    global_step: int = 0
    sanity_checking: bool = False
    should_stop: bool = False
    has_ended: bool = False
    error: BaseException | None = None
    store: Callable[[], None] = field(default=lambda: None)

    @classmethod
    def of(cls, begun: Begun, yardstick: Yardstick, baseline: Content | None) -> "Member":
        """The member that trains a run from its start."""
        config, prepared = begun.config, begun.prepared
        watch = fitting.run_callbacks(config, begun.run_dir, prepared, yardstick)
        callbacks = [*watch.callbacks, *lightning_parts.build_callbacks(config, begun.run_dir)]
        # As in Lightning, checkpoints come last, so that they hold what the other callbacks have noted.
        callbacks.sort(key=lambda callback: callback is watch.keep)
        loggers = lightning_parts.build_loggers(config, begun.run_dir)
        module = trainer.build_module(config, prepared.estimand, prepared.rows, evaluates=False)
        # A run that has to go back to an earlier state leaves the group, and is trained alone.
        module.recovery = Recovery(0, module.objective)
        module.configure_optimizers()
        # Without a gradient a step does nothing, but torch warns of a scheduler whose optimiser has taken none.
        module.optimizer.step()
        max_epochs = config.trainer.max_epochs or 0
        member = cls(begun, yardstick, baseline, watch, callbacks, loggers, module, max_epochs)
        module.view = member
        return member

    def save_checkpoint(self, filepath: Path, /, weights_only: bool = False) -> None:
        """Write a checkpoint, by default with all that the run is resumed from."""
        # Parameters are views of a matrix of all members, and a file would hold all of it.
        weights = self.module.objective.state_dict().items()
        state = {f"objective.{name}": value.clone() for name, value in weights}
        content: Content = {"epoch": self.current_epoch, "global_step": self.global_step, "state_dict": state}
        if not weights_only:
            self.store()
            states = {callback.state_key: callback.state_dict() for callback in self.callbacks}
            scheduler = self.module.scheduler
            content["callbacks"] = {key: known for key, known in states.items() if known}
            content["optimizer_states"] = [self.module.optimizer.state_dict()]
            content["lr_schedulers"] = [] if scheduler is None else [scheduler.state_dict()]
            self._call("on_save_checkpoint", content)
        Archive(self.begun.card).save_checkpoint(content, filepath)

    def share_time(self, num_members: int) -> None:
        """Let pictures, checkpoints and logs, which are written as time allows, count this run's part of the time."""
        self.watch.board.share /= num_members
        self.watch.keep.min_seconds *= num_members
        self.watch.log.min_seconds *= num_members

    def start(self) -> None:
        """Begin, up to the evaluation of the untrained network."""
        self._call("setup", "fit")
        self._call("on_fit_start")
        self.sanity_checking = True
        self.module.on_validation_start()

    def end_first_evaluation(self, figures: dict[str, dict[str, float]]) -> None:
        """Take the figures of the untrained network, by split."""
        self._take(figures)
        self._call("on_validation_end")
        self.module.on_validation_end()
        self._call("on_sanity_check_end")
        self.sanity_checking = False

    def begin_epoch(self) -> None:
        """Begin an epoch that follows an evaluation."""
        self._call("on_train_epoch_start")
        self.module.on_train_epoch_start()

    def begin_another_epoch(self) -> None:
        """Begin an epoch that follows another one without an evaluation."""
        self.current_epoch += 1
        self.module.begin_another_epoch(self.global_step)

    def end_steps(self, num_steps: int) -> None:
        """Count the steps of an epoch, which the group has taken."""
        self.global_step += num_steps
        self.module.rows_seen += self.begun.prepared.data.train.num_rows
        self.module.on_validation_start()

    def end_evaluation(self, figures: dict[str, dict[str, float]]) -> None:
        """Take the figures of the evaluation after an epoch, by split."""
        self._take(figures)
        self._call("on_validation_end")
        self.module.on_validation_end()

    def end_epoch(self) -> None:
        """End an epoch after its evaluation, and training where it is the last epoch."""
        # As in Lightning, checkpoints come after the module, so that they hold the scheduler's step.
        *others, checkpoints = self.callbacks
        self._call("on_train_epoch_end", callbacks=others)
        self.module.on_train_epoch_end()
        self._call("on_train_epoch_end", callbacks=[checkpoints])
        self.current_epoch += 1
        if self.should_stop or self.current_epoch >= self.max_epochs:
            self._call("on_fit_end")
            self.watch.keep.restore_best(self.module)
            self.has_ended = True

    def _take(self, figures: dict[str, dict[str, float]]) -> None:
        self.module.figures, self.module.evaluated_step = figures, self.global_step

    def fail(self, error: BaseException) -> None:
        """Note an error that ends this run, and let the callbacks know."""
        self.error = error
        self._call("on_exception", error)

    def finalize(self) -> None:
        """Close the logs."""
        for logger in self.loggers:
            logger.finalize("success" if self.error is None else "failed")

    def _call(self, hook: str, *content: Any, callbacks: Sequence[lightning.Callback] | None = None) -> None:
        for callback in self.callbacks if callbacks is None else callbacks:
            getattr(callback, hook)(self, self.module, *content)
