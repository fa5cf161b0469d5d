"""Writes settings, final figures and pictures to loggers other than TensorBoard's."""

from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger

from mlefw.callback.event_files import errors_as_warning, is_usable
from mlefw.training.trainer_view import TrainerView


class WriteOtherLogs(lightning.Callback):
    """Gives each logger the settings at the start of a run, and at its end what the run has come to.

    A logger that has a method `log_image(key, images, step)`, with a list of PNG files as bytes, gets the pictures; one
    that has `close()` is closed after the last of them.

    Args:
        settings: by name, as `scalars` tells them; none where loggers are not to get them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Write the settings of a new run; of a resumed one they are there already."""
        if trainer.global_step > 0 or not self.settings:
            return
        for logger in _others(trainer):
            with errors_as_warning(logger):
                logger.log_hyperparams(dict(self.settings))

    def finish(self, trainer: TrainerView, results: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        """Write the final figures and the pictures (PNG), and close."""
        for logger in _others(trainer):
            with errors_as_warning(logger):
                logger.log_metrics(dict(results), step=trainer.global_step)
                for name, content in pictures.items() if hasattr(logger, "log_image") else ():
                    logger.log_image(name, [content], step=trainer.global_step)
                logger.save()
                if hasattr(logger, "close"):
                    logger.close()


def _others(trainer: TrainerView) -> list[Any]:
    return [one for one in trainer.loggers if not isinstance(one, TensorBoardLogger) and is_usable(one)]
