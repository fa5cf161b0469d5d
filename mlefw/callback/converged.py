"""Ends a deterministic training that has come to rest."""

import lightning
import torch

from mlefw.callback.stored_state import Content
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView


class StopWhenConverged(lightning.Callback):
    """Stops once the epochs up to an evaluation no longer move any parameter by more than `tolerance` relative.

    A stochastic regime never comes to rest, so it is left alone.
    """

    def __init__(self, tolerance: float = 1e-12) -> None:
        self.tolerance = tolerance
        self.before: list[torch.Tensor] = []
        self.converged = False
        self.is_resumed = False

    def state_dict(self) -> Content:
        """What a resumed run needs; within an epoch also the parameters that it began with."""
        return {"converged": self.converged, "before": self.before}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take it up again."""
        self.converged, self.before = state_dict["converged"], state_dict["before"]
        self.is_resumed = bool(self.before)

    def on_train_epoch_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Remember the parameters."""
        assert isinstance(module, LikelihoodModule)
        if self.is_resumed:
            self.before = [p.to(module.device) for p in self.before]
        else:
            self.before = [p.detach().clone() for p in module.objective.parameters()]
        self.is_resumed = False

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Compare with them."""
        assert isinstance(module, LikelihoodModule)
        pairs = zip(module.objective.parameters(), self.before, strict=True)
        # Where the first one moves, as it mostly does, the others are not looked at.
        # A training that has gone back is where it was, and not at rest.
        has_moved = module.recovery.history.is_waiting
        self.converged = not has_moved and all(self._is_at_rest(now.detach(), before) for now, before in pairs)
        self.before = []
        trainer.should_stop |= self.converged

    def _is_at_rest(self, now: torch.Tensor, before: torch.Tensor) -> bool:
        return bool((now - before).norm() <= self.tolerance * (1 + before.norm()))
