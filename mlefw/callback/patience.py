"""Ends a training that no longer gets better on held-out rows."""

import lightning
from lightning.pytorch.callbacks import EarlyStopping

from mlefw.training.module import LikelihoodModule


class StopWithoutProgress(EarlyStopping):
    """Stops after `patience` epochs without a better validation NLL, evaluated or not.

    Args:
        patience: in epochs.
        min_delta: by how many nats per row an NLL has to be less to be better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        super().__init__(
            "validation/nll_nats",
            min_delta=min_delta,
            patience=patience,
            mode="min",
            check_finite=False,
            check_on_train_epoch_end=True,
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare, where there is something new."""
        assert isinstance(pl_module, LikelihoodModule)
        if pl_module.epochs_judged:
            self.wait_count += pl_module.epochs_judged - 1
            super().on_train_epoch_end(trainer, pl_module)
