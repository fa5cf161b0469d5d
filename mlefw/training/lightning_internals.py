"""Every name of Lightning that it does not promise to keep, in one place: a new version is looked at here.

`tests/training/test_lightning_internals.py` says which of them has moved, should one ever do so.
"""

from collections.abc import Sequence

import lightning
from lightning.fabric.loggers.logger import rank_zero_experiment as rank_zero_experiment
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden

EvaluationLoop = _EvaluationLoop
"""Evaluates between epochs; a loop of ours derives from it."""

_STAGES = ("ready", "started", "processed", "completed")


def call_hook(trainer: lightning.Trainer, hook: str) -> None:
    """Call a hook of all callbacks, and then that of the module."""
    call._call_callback_hooks(trainer, hook)
    call._call_lightning_module_hook(trainer, hook)


def evaluate_by(trainer: lightning.Trainer, loop: EvaluationLoop) -> None:
    """Let a loop of ours evaluate between epochs."""
    trainer.fit_loop.epoch_loop.val_loop = loop


def answer_signals_alone(trainer: lightning.Trainer) -> None:
    """Ask no other process for a signal: Lightning does so at every hand-over."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def has_callback_with(trainer: lightning.Trainer, hooks: Sequence[str]) -> bool:
    """Whether a callback overrides one of the hooks."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(is_overridden(hook, callback, lightning.Callback) for callback in callbacks for hook in hooks)


def count_steps(trainer: lightning.Trainer, number: int) -> None:
    """Add steps to the trainer's `global_step`, as its wrapper of an optimiser does one by one."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += number
        tracker.completed += number


def count_epoch(trainer: lightning.Trainer) -> None:
    """Add one to the trainer's `current_epoch`, as it does when an epoch ends with a hand-over."""
    progress = trainer.fit_loop.epoch_progress
    for tracker in (progress.total, progress.current):
        for stage in _STAGES:
            setattr(tracker, stage, getattr(tracker, stage) + 1)


def set_place(trainer: lightning.Trainer, epoch: int, step: int) -> None:
    """Let the trainer's `current_epoch` and `global_step` be those of a run that is gone on with."""
    loop = trainer.fit_loop
    for tracker in (loop.epoch_progress.total, loop.epoch_progress.current):
        for stage in _STAGES:
            setattr(tracker, stage, epoch)
    steps = loop.epoch_loop.manual_optimization.optim_step_progress.total
    steps.ready = steps.completed = step
