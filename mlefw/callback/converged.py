"""Ends a training whose parameters no longer move."""

import lightning
import torch

from mlefw.callback.stored_state import Content
from mlefw.distributed import sharding
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView


class StopWhenConverged(lightning.Callback):
    """Stops once the epochs up to an evaluation move no parameter tensor by more than `tolerance`.

    Batches drawn at random keep parameters moving, so that such a training is never stopped.

    Args:
        tolerance: bound on the norm of a change, relative to one plus the norm of the tensor.
    """

    def __init__(self, tolerance: float = 1e-12) -> None:
        self.tolerance = tolerance
        self.before: list[torch.Tensor] = []
        self.converged = False
        self.is_resumed = False

    def state_dict(self) -> Content:
        """Whether training was stopped, and within an epoch the parameters with which it began."""
        return {"converged": self.converged, "before": self.before}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        self.converged, self.before = state_dict["converged"], state_dict["before"]
        self.is_resumed = bool(self.before)

    def on_train_epoch_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Remember the parameters, unless those of a resumed epoch are known from its checkpoint."""
        assert isinstance(module, LikelihoodModule)
        if self.is_resumed:
            pairs = zip(self.before, module.objective.parameters(), strict=True)
            self.before = [sharding.placed(before.to(module.device), p) for before, p in pairs]
        else:
            self.before = [p.detach().clone() for p in module.objective.parameters()]
        self.is_resumed = False

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Compare the parameters with those at the start."""
        assert isinstance(module, LikelihoodModule)
        pairs = zip(module.objective.parameters(), self.before, strict=True)
        # A training that has gone back to an earlier state has its parameters again, and is not at rest.
        has_moved = module.recovery.history.is_waiting
        self.converged = not has_moved and all(self._is_at_rest(now.detach(), before) for now, before in pairs)
        self.before = []
        trainer.should_stop |= self.converged

    def _is_at_rest(self, now: torch.Tensor, before: torch.Tensor) -> bool:
        return bool((now - before).norm() <= self.tolerance * (1 + before.norm()))
