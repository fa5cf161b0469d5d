"""A progress line on the terminal, updated after each evaluation."""

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlefw.distributed import ranks
from mlefw.system.number_format import number
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView


class ShowProgress(lightning.Callback):
    """Shows the epoch, the NLL of the watched splits in nats per row, and the time left; nothing without a terminal."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.figures: dict[str, float] = {}

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Show the line."""
        console = Console(stderr=True)
        if console.is_terminal and ranks.rank() == 0:
            columns = (TextColumn("epoch {task.completed:g}"), BarColumn(), TextColumn("{task.description}"))
            self.progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.task = self.progress.add_task("", total=trainer.max_epochs)
            self.progress.start()

    def on_validation_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Update the line."""
        if self.progress is not None:
            assert isinstance(module, LikelihoodModule)
            self.figures |= {split: values["nll_nats"] for split, values in module.figures.items()}
            figures = (f"{split} {number(value)}" for split, value in self.figures.items())
            self.progress.update(
                self.task,
                completed=0 if trainer.sanity_checking else trainer.current_epoch + 1,
                description="nats  " + "  ".join(figures),
            )

    def on_fit_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Remove the line."""
        self._stop()

    def on_exception(self, trainer: TrainerView, module: lightning.LightningModule, exception: BaseException) -> None:
        """Remove the line before the error is printed."""
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
