"""Ends a deterministic training that has come to rest."""

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

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Remember the parameters."""
        assert isinstance(module, LikelihoodModule)
        self.before = [p.detach().clone() for p in module.objective.parameters()]

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Compare with them."""
        assert isinstance(module, LikelihoodModule)
        moved = [
            (now.detach() - then).norm() <= self.tolerance * (1 + then.norm())
            for now, then in zip(module.objective.parameters(), self.before, strict=True)
        ]
        if bool(torch.stack(moved).all()):
            self.converged = True
            trainer.should_stop = True
