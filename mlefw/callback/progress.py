"""A progress line on the terminal or in a notebook, updated after each evaluation."""

from html import escape
from typing import Any

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlefw.distributed import ranks
from mlefw.system.number_format import number
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView


class ShowProgress(lightning.Callback):
    """Shows the epoch, the NLL of the watched splits in nats per row, and the time left.

    The line is removed at the end. Nothing is shown without a terminal or a notebook.
    """

    def __init__(self) -> None:
        self.progress: Progress | NotebookLine | None = None
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
        elif console.is_jupyter and ranks.rank() == 0:
            self.progress = NotebookLine(trainer.max_epochs)

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


class NotebookLine:
    """A line in the output of a notebook's cell, which is empty once it has stopped.

    rich and tqdm need ipywidgets for that, and leave a trace of their widgets in the file.

    Args:
        total: number of epochs; None where time or steps bound the training.
    """

    def __init__(self, total: int | None) -> None:
        from IPython.display import display

        self.total = total
        self._handle: Any = display(self._content(""), raw=True, display_id=True)

    def update(self, task: TaskID, completed: float, description: str) -> None:
        """Show a number of epochs and a text; as `rich.progress.Progress.update`, of whose tasks there is one."""
        bar = "" if self.total is None else f'<progress value="{completed:g}" max="{self.total}"></progress> '
        text = f"epoch {completed:g}  {description}"
        self._show(self._content(text, f"{bar}<code>{escape(text)}</code>"))

    def stop(self) -> None:
        """Empty the line."""
        self._show(self._content(""))

    def _show(self, content: dict[str, str]) -> None:
        self._handle.update(content, raw=True)

    @staticmethod
    def _content(text: str, html: str = "") -> dict[str, str]:
        return {"text/plain": text, "text/html": html}
