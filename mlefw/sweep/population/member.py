"""One run of a population: to its callbacks what Lightning's trainer is to those of a run alone."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from mlefw.callback.stored_state import Content
from mlefw.command.train import Begun
from mlefw.run import fitting, trainer
from mlefw.run.archive import Archive
from mlefw.score.yardstick import Yardstick
from mlefw.training.lightning_internals import hand_to
from mlefw.training.recovery import Recovery


class Member:
    """A run whose callbacks are called in Lightning's order.

    The attributes without an underscore are those of `lightning.Trainer` that callbacks and the module read. It stands
    in for a trainer so that there is one set of callbacks: those that stop, keep and log a run alone do so here, and
    are Lightning's `EarlyStopping`, `Checkpoint` and `Callback` for the sake of the plugins beside them. `strategy` and
    `state` are what `EarlyStopping` asks for. Callbacks of others, which may ask for more, never come here: a job that
    has one is trained alone (`signature.py`).
    """

    fast_dev_run = False
    is_global_zero = is_last_batch = True
    max_steps, max_time = -1, None
    val_check_interval, check_val_every_n_epoch = 1.0, 1

    def __init__(self, begun: Begun, yardstick: Yardstick, baseline: Content | None) -> None:
        self.begun, self.yardstick, self.baseline = begun, yardstick, baseline
        config, prepared = begun.config, begun.prepared
        self.watching = fitting.run_callbacks(config, begun.run_dir, prepared, yardstick)
        known = [*self.watching.callbacks, *trainer.build_callbacks(config)]
        self.callbacks = sorted(known, key=lambda callback: isinstance(callback, Checkpoint))
        self.loggers = trainer.build_loggers(config, begun.run_dir)
        self.module = self.lightning_module = trainer.build_module(config, prepared.estimand, prepared.rows, False)
        # A run that has to go back does so alone.
        self.module.recovery = Recovery(0, self.module.objective)
        hand_to(self.module, self)
        found: Any = self.module.configure_optimizers()
        scheduler = found["lr_scheduler"] if isinstance(found, dict) else None
        self.optimizer: Optimizer = found["optimizer"] if isinstance(found, dict) else found
        # Without a gradient it does nothing; schedulers want to have seen it.
        self.optimizer.step()
        self.optimizers = [self.optimizer]
        self.lr_scheduler_configs = [] if scheduler is None else [SimpleNamespace(scheduler=scheduler)]
        self.current_epoch = self.global_step = 0
        self.max_epochs = config.trainer.max_epochs or 0
        self.sanity_checking = self.should_stop = self.has_ended = False
        self.state = SimpleNamespace(fn=TrainerFn.FITTING)
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all=True: decision)
        self.store: Callable[[], None] = lambda: None
        self.error: BaseException | None = None
        self.started = time.monotonic()

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """What early stopping reads, in the precision in which Lightning keeps it."""
        return {
            f"{split}/nll_nats": torch.tensor(figures["nll_nats"], dtype=torch.get_default_dtype())
            for split, figures in self.module.figures.items()
        }

    def save_checkpoint(self, path: Any, weights_only: bool = False) -> None:
        """Write a checkpoint with the parts that a run is resumed from."""
        # Parameters are views of those of all members, and a file would hold these.
        known = self.module.objective.state_dict().items()
        state = {f"objective.{name}": value.clone() for name, value in known}
        content: Content = {"epoch": self.current_epoch, "global_step": self.global_step, "state_dict": state}
        if not weights_only:
            self.store()
            states = {callback.state_key: callback.state_dict() for callback in self.callbacks}
            content["callbacks"] = {key: one for key, one in states.items() if one}
            content["optimizer_states"] = [self.optimizer.state_dict()]
            content["lr_schedulers"] = [config.scheduler.state_dict() for config in self.lr_scheduler_configs]
            self._call("on_save_checkpoint", content)
        Archive(self.begun.card).save_checkpoint(content, path)

    def share_time(self, num_members: int) -> None:
        """Let what is done every now and then count the run's part of the time alone."""
        self.watching.board.share /= num_members
        self.watching.keep.min_seconds *= num_members
        self.watching.log.min_seconds *= num_members

    def start(self) -> None:
        """What comes before the evaluation of the untrained network."""
        for callback in self.callbacks:
            callback.setup(self, self.module, "fit")
        self._call("on_fit_start")
        self.sanity_checking = True
        self.module.on_validation_start()

    def look_before(self, figures: dict[str, dict[str, float]]) -> None:
        """Take the figures of the untrained network."""
        self._take(figures)
        self._call("on_validation_end")
        self.module.on_validation_end()
        self._call("on_sanity_check_end")
        self.sanity_checking = False

    def begin_epoch(self) -> None:
        """What comes before the steps of an epoch."""
        self._call("on_train_epoch_start")
        self.module.on_train_epoch_start()

    def begin_another_epoch(self) -> None:
        """Go on without an evaluation."""
        self.current_epoch += 1
        self.module.begin_another_epoch(self.global_step)

    def end_steps(self, num_steps: int) -> None:
        """What comes after the steps of an epoch."""
        self.global_step += num_steps
        self.module.rows_seen += self.begun.prepared.data.train.num_rows
        self.module.on_validation_start()

    def end_epoch(self, figures: dict[str, dict[str, float]]) -> None:
        """Take the figures of an epoch, and end where it was the last one."""
        self._take(figures)
        self._call("on_validation_end")
        self.module.on_validation_end()
        monitors = (Checkpoint, EarlyStopping)
        self._call("on_train_epoch_end", only=lambda callback: not isinstance(callback, monitors))
        self.module.on_train_epoch_end()
        self._call("on_train_epoch_end", only=lambda callback: isinstance(callback, monitors))
        self.current_epoch += 1
        if self.should_stop or self.current_epoch >= self.max_epochs:
            self._call("on_fit_end")
            self.watching.keep.restore_best(self.module)
            self.has_ended = True

    def _take(self, figures: dict[str, dict[str, float]]) -> None:
        self.module.figures, self.module.evaluated_step = figures, self.global_step

    def fail(self, error: BaseException) -> None:
        """Let the callbacks know of an error that ends this run."""
        self.error = error
        self._call("on_exception", error)

    def finalize(self) -> None:
        """Close the logs."""
        for logger in self.loggers:
            logger.finalize("success" if self.error is None else "failed")

    def _call(self, hook: str, *content: Any, only: Callable[[Any], bool] = lambda callback: True) -> None:
        for callback in self.callbacks:
            if only(callback):
                getattr(callback, hook)(self, self.module, *content)
