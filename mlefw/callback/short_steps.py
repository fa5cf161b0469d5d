"""Warns where several processes take longer than one would."""

import lightning

from mlefw.distributed import ranks
from mlefw.system.warning import warn
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_SHORT_S = 0.02
"""Seconds a step takes one process: with less, several gain nothing, since adding up over them takes some 2 ms."""


class WarnOfShortSteps(lightning.Callback):
    """Warns after the second epoch, since the first one sets steps up, where a step on a CPU is too short to share."""

    def __init__(self) -> None:
        self.first_step, self.num_epochs = 0, 0

    def on_train_epoch_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Note the step with which the epoch begins."""
        self.first_step = trainer.global_step

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Hold the mean time of a step to what pays."""
        assert isinstance(module, LikelihoodModule)
        self.num_epochs += 1
        num_steps = trainer.global_step - self.first_step
        if self.num_epochs != 2 or num_steps == 0 or module.device.type != "cpu" or ranks.world_size() == 1:
            return
        step_s = module.seconds / num_steps
        if step_s < _SHORT_S / ranks.world_size():
            warn(
                f"a step takes {1000 * step_s:.1f} ms on {ranks.world_size()} processes: on a CPU, steps that take one "
                f"process less than about {1000 * _SHORT_S:.0f} ms are faster there (trainer.devices=1)"
            )
