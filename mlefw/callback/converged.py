"""Ends a deterministic training that has come to rest."""

from typing import Any

import lightning
import torch

from mlefw.module import LikelihoodModule


class StopWhenConverged(lightning.Callback):
    """Stops once an epoch of full-batch steps no longer moves any parameter by more than `tolerance` relative.

    A stochastic regime never comes to rest, so it is left alone.
    """

    def __init__(self, tolerance: float = 1e-12) -> None:
        self.tolerance = tolerance
        self.before: list[torch.Tensor] = []
        self.converged = False
        self.is_resumed = False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; within an epoch also the parameters that it began with."""
        return {"converged": self.converged, "before": self.before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.converged, self.before = state_dict["converged"], state_dict["before"]
        self.is_resumed = bool(self.before)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Remember the parameters."""
        assert isinstance(module, LikelihoodModule)
        if self.is_resumed:
            self.before = [p.to(module.device) for p in self.before]
        else:
            self.before = [p.detach().clone() for p in module.objective.parameters()]
        self.is_resumed = False

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Compare with them."""
        assert isinstance(module, LikelihoodModule)
        moved = [
            (now.detach() - then).norm() <= self.tolerance * (1 + then.norm())
            for now, then in zip(module.objective.parameters(), self.before, strict=True)
        ]
        self.before = []
        if bool(torch.stack(moved).all()):
            self.converged = True
            trainer.should_stop = True
