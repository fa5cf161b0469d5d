"""What callbacks may ask of whatever trains a network."""

from pathlib import Path
from typing import Protocol

from lightning.pytorch.loggers import Logger


class TrainerView(Protocol):
    """The part of `lightning.Trainer` that callbacks of mlefw use, under Lightning's names and with their meanings.

    Lightning's trainer provides it, and so does a member of a group of runs that are trained together
    (`mlefw.sweep.population.member.Member`). A callback that uses nothing else works with both.
    """

    should_stop: bool
    """Set by a callback to end the training after the present epoch."""

    @property
    def current_epoch(self) -> int:
        """The epoch in training, counted from 0; after the end of training the number of complete epochs."""

    @property
    def global_step(self) -> int:
        """The number of optimiser steps taken so far."""

    @property
    def max_epochs(self) -> int | None:
        """The number of epochs after which training ends; None or -1 for no such bound."""

    @property
    def sanity_checking(self) -> bool:
        """Whether the evaluation under way is the one before the first step."""

    @property
    def loggers(self) -> list[Logger]:
        """The loggers of the run."""

    def save_checkpoint(self, filepath: Path, /, weights_only: bool = False) -> None:
        """Write a checkpoint; with `weights_only` the objective alone, which no training can be resumed from."""
