"""Ends a training that no longer gets better on held-out rows."""

import lightning
from lightning.pytorch.callbacks import EarlyStopping

from mlefw.module import LikelihoodModule


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
        """Compare, where an evaluation was due: one at the end of a run that may be resumed does not count."""
        assert isinstance(pl_module, LikelihoodModule)
        num_epochs = trainer.current_epoch + 1
        if pl_module.cadence.is_due(num_epochs):
            self.wait_count += pl_module.cadence.gap(num_epochs) - 1
            super().on_train_epoch_end(trainer, pl_module)
