"""What TensorBoard shows beside the scalars: charts, text, hyperparameters, pictures."""

from collections.abc import Mapping
from typing import Any

import lightning
import matplotlib
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams

matplotlib.use("Agg", force=False)


class WriteBoard(lightning.Callback):
    """Lays out charts of nats and bits with train, validation, null and exact lines, and charts of distances.

    Args:
        text: Markdown pages by tag, written at the start.
    """

    def __init__(self, text: Mapping[str, str]) -> None:
        self.text = text

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write the layout and the pages."""
        for board in _boards(trainer):
            board.experiment.add_custom_scalars(
                {
                    "Distance to the exact estimate": {
                        f"NLL in {unit}": ["Multiline", [rf"^(null/|mle/|map/)?(train|validation)/nll_{unit}$"]]
                        for unit in ("nats", "bits")
                    }
                    | {
                        "gap in nats": ["Multiline", [r"^(train|validation)/gap_nats$"]],
                        "skill (0 null model, 1 exact)": ["Multiline", [r"^(train|validation)/skill$"]],
                        "excess of a linear model's objective": ["Multiline", [r"^train/excess_objective$"]],
                    }
                }
            )
            for tag, page in self.text.items():
                board.experiment.add_text(tag, page)

    def finish(
        self,
        trainer: lightning.Trainer,
        settings: Mapping[str, str | float | bool],
        results: Mapping[str, float],
        text: Mapping[str, str],
        figures: Mapping[str, Figure],
    ) -> None:
        """Write the final table, the pictures, and the run's row of the hyperparameter table.

        Only the summaries that start and end a session are written: each run then carries its own columns, and the
        tab shows the union over a sweep.
        """
        for board in _boards(trainer):
            writer = board.experiment
            for tag, page in text.items():
                writer.add_text(tag, page)
            for tag, figure in figures.items():
                writer.add_figure(tag, figure, global_step=trainer.global_step, close=False)
            start, begin, end = hparams(dict(settings), dict(results))
            for summary in (start, begin, end):
                writer.file_writer.add_summary(summary)
            for name, value in results.items():
                writer.add_scalar(name, value, trainer.global_step)
            writer.flush()


def _boards(trainer: lightning.Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
