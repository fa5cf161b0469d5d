"""Notes the coefficients of a linear model after each epoch."""

import sys

import lightning
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.distance import parameters
from mlefw.callback.stored_state import Content
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_MAX_POINTS = 400
"""Epochs that are kept."""

_MAX_SIZE = 4000
"""Coefficients of a model; of more nothing is kept."""


class RecordCoefficients(lightning.Callback):
    """Keeps the coefficients of a linear model over epochs, in the layout of the exact estimate.

    When there are 400 points, every other one is dropped, and from then on half as many are added. Of a model that is
    not linear, or has more than 4,000 coefficients, nothing is kept.

    Args:
        solution: the exact estimate.
    """

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.epochs: list[int] = []
        self.thetas: list[Tensor] = []
        self.every = 1

    def state_dict(self) -> Content:
        """The epochs and coefficients kept so far."""
        thetas = torch.stack(self.thetas) if self.thetas else torch.empty(0)
        return {"epochs": self.epochs, "thetas": thetas, "every": self.every}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        self.epochs, self.every = list(state_dict["epochs"]), state_dict["every"]
        self.thetas = list(state_dict["thetas"])

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Keep the coefficients before training."""
        if trainer.global_step == 0:
            self._note(module, 0)

    def on_validation_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Keep the coefficients after an epoch, if enough epochs have passed since the last ones kept."""
        epochs = trainer.current_epoch + 1
        if not trainer.sanity_checking and epochs - (self.epochs[-1] if self.epochs else 0) >= self.every:
            self._note(module, epochs)

    def on_fit_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Keep the coefficients after the last epoch."""
        if self.epochs and self.epochs[-1] != trainer.current_epoch:
            self._note(module, trainer.current_epoch)

    def _note(self, module: lightning.LightningModule, epochs: int) -> None:
        assert isinstance(module, LikelihoodModule)
        theta = parameters(module.objective, self.solution.problem)
        if theta is None or theta.numel() > _MAX_SIZE:
            self.every = sys.maxsize
            return
        if len(self.epochs) >= _MAX_POINTS:
            self.epochs, self.thetas, self.every = self.epochs[::2], self.thetas[::2], 2 * self.every
        self.epochs.append(epochs)
        self.thetas.append(theta)
