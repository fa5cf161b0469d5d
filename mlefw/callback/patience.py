"""Ends a training whose NLL on the validation rows no longer falls."""

import lightning
import torch
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from mlefw.callback.stored_state import Content
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_MONITOR = "validation/nll_nats"


class StopWithoutProgress(lightning.Callback):
    """Stops after `patience` epochs without a better validation NLL, evaluated or not.

    Lightning's `EarlyStopping` counts evaluations instead, which may be several epochs apart. Its names of what is
    stored are kept, so that checkpoints of earlier versions of mlefw can be resumed.

    Args:
        patience: in epochs.
        min_delta: by how many nats per row an NLL has to be less to be better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.wait_count = self.stopped_epoch = 0
        # A tensor of 32 bits, since that is what checkpoints hold: a resumed run compares what it would have compared.
        self.best_score = torch.tensor(torch.inf)
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None

    @property
    def state_key(self) -> str:
        """The name of the callback's state in a checkpoint."""
        return f"{type(self).__name__}{ {'monitor': _MONITOR, 'mode': 'min'} }"

    def state_dict(self) -> Content:
        """What a resumed run needs to go on comparing and counting."""
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": self.stopping_reason.value,
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        for name in self.state_dict():
            setattr(self, name, state_dict[name])
        self.stopping_reason = EarlyStoppingReason(state_dict["stopping_reason"])

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Compare the NLL with the least one so far, where there was an evaluation that counts."""
        assert isinstance(module, LikelihoodModule)
        if not module.epochs_judged:
            return
        # All processes of a run decide alike, since the figures of each are those of all rows.
        current = torch.tensor(module.figures["validation"]["nll_nats"])
        if current + self.min_delta < self.best_score:
            self.best_score, self.wait_count = current, 0
            return
        self.wait_count += module.epochs_judged
        if self.wait_count >= self.patience:
            self._stop(trainer)

    def _stop(self, trainer: TrainerView) -> None:
        trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
        self.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED
        self.stopping_reason_message = (
            f"Monitored metric {_MONITOR} did not improve in the last {self.wait_count} records."
            f" Best score: {self.best_score:.3f}. Signaling Trainer to stop."
        )
