"""All private names of Lightning that mlefw uses: where to look when a new version of Lightning comes.

`tests/training/test_lightning_internals.py` fails with a sentence that says which of them has changed.
"""

from collections.abc import Sequence

import lightning
from lightning.fabric.loggers.logger import rank_zero_experiment as rank_zero_experiment
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden

EvaluationLoop = _EvaluationLoop
"""Lightning's loop that evaluates between epochs."""

_STAGES = ("ready", "started", "processed", "completed")
"""The counters of a progress tracker; all of them are advanced, since a checkpoint of Lightning holds each."""


def call_hook(trainer: lightning.Trainer, hook: str) -> None:
    """Call a hook of all callbacks, and then that of the module."""
    call._call_callback_hooks(trainer, hook)
    call._call_lightning_module_hook(trainer, hook)


def evaluate_by(trainer: lightning.Trainer, loop: EvaluationLoop) -> None:
    """Make `loop` the one that evaluates between epochs."""
    trainer.fit_loop.epoch_loop.val_loop = loop


def answer_signals_alone(trainer: lightning.Trainer) -> None:
    """Do not ask the other processes for a termination signal, as Lightning does before each batch that it gets."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def has_callback_with(trainer: lightning.Trainer, hooks: Sequence[str]) -> bool:
    """Whether a callback overrides one of the hooks."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(is_overridden(hook, callback, lightning.Callback) for callback in callbacks for hook in hooks)


def is_measured(trainer: lightning.Trainer) -> bool:
    """Whether a profiler, or the search for where NaN comes from, has to see each pass and each step."""
    profiler = trainer.profiler  # type: ignore[attr-defined]
    return trainer._detect_anomaly or not isinstance(profiler, PassThroughProfiler)


def is_monitored(trainer: lightning.Trainer) -> bool:
    """Whether a callback watches figures by their names, as those of Lightning do."""
    return any(getattr(callback, "monitor", None) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def tell_length(trainer: lightning.Trainer, number: int) -> None:
    """Tell progress bars, and the loop itself, how many batches the epoch that begins has."""
    trainer.fit_loop.epoch_loop.max_batches = trainer.fit_loop.max_batches = number


def count_steps(trainer: lightning.Trainer, number: int) -> None:
    """Add `number` steps to the trainer's `global_step`: steps of the bare optimiser are not counted by Lightning."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += number
        tracker.completed += number


def tell_loggers(trainer: lightning.Trainer, number: int) -> None:
    """Let what callbacks log stand at its step, after `number` steps in what Lightning takes for one batch."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += number - 1


def count_epoch(trainer: lightning.Trainer) -> None:
    """Add one to the trainer's `current_epoch`, for an epoch that ends within what Lightning takes for one."""
    progress = trainer.fit_loop.epoch_progress
    for tracker in (progress.total, progress.current):
        for stage in _STAGES:
            setattr(tracker, stage, getattr(tracker, stage) + 1)


def set_place(trainer: lightning.Trainer, epoch: int, step: int) -> None:
    """Set the trainer's `current_epoch` and `global_step`, in a run that is resumed."""
    loop = trainer.fit_loop
    for tracker in (loop.epoch_progress.total, loop.epoch_progress.current):
        for stage in _STAGES:
            setattr(tracker, stage, epoch)
    steps = loop.epoch_loop.manual_optimization.optim_step_progress.total
    steps.ready = steps.completed = step
    # The step at which callbacks of Lightning write to loggers.
    loop.epoch_loop._batches_that_stepped = step
