"""Writes what TensorBoard shows beside scalars: charts, text, hyperparameters, pictures and distributions."""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from mlefw.callback.event_files import errors_as_warning, is_usable
from mlefw.callback.figures import LogFigures
from mlefw.callback.stored_state import Content
from mlefw.objective.objective import Objective, whole_eta
from mlefw.plot.pit import spread
from mlefw.plot.style import png
from mlefw.report.forecast import Forecast, Sample, forecast
from mlefw.report.pictures import calibration
from mlefw.system.attempt import attempt
from mlefw.system.torch_internals import file_writer
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_SHARE = 0.02
"""The part of the training time that pictures may take before its end."""

_MAX_WEIGHTS = 1_000_000
"""At most so many elements of a tensor enter its histogram."""

_NUM_BUCKETS = 30
"""Of a histogram: as many as TensorBoard draws."""


class WriteBoard(lightning.Callback):
    """Lays out the charts; shows calibration and weights after 1, 2, 4, 8, … epochs, as time allows.

    Args:
        text: Markdown pages by tag, written at the start.
        sample: the rows whose predictive distributions are shown.
        figures: the callback whose logged figures are laid out; it has to come before this one.
    """

    def __init__(self, text: Mapping[str, str], sample: Sample, figures: LogFigures) -> None:
        self.text, self.sample, self.figures = text, sample, figures
        self.started = time.monotonic()
        self.spent, self.cost, self.share = 0.0, 0.25, _SHARE
        self.is_laid_out = False

    def state_dict(self) -> Content:
        """Whether the charts are laid out, which is done once in a run, however often it is resumed."""
        return {"is_laid_out": self.is_laid_out}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        self.is_laid_out = state_dict["is_laid_out"]

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Write the pages."""
        self.started = time.monotonic()
        if trainer.global_step > 0:
            return
        for board in _boards(trainer):
            with errors_as_warning(board):
                for tag, page in self.text.items():
                    board.experiment.add_text(tag, page)

    def on_validation_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Show the state where the number of epochs has reached another power of two and pictures have time left.

        The charts are laid out at the first evaluation, since it is known only then which figures there are.
        """
        assert isinstance(module, LikelihoodModule)
        if trainer.sanity_checking:
            return
        if not self.is_laid_out:
            self.is_laid_out = True
            for board in _boards(trainer):
                with errors_as_warning(board):
                    board.experiment.add_custom_scalars(_layout(self.figures.history[0]))
        epochs, clock = trainer.current_epoch + 1, time.monotonic()
        is_further = epochs.bit_length() > (epochs - module.evaluation_schedule.gap(epochs)).bit_length()
        if not is_further or self.spent + self.cost > self.share * (clock - self.started):
            return
        if _boards(trainer):
            attempt("the pictures of an epoch", lambda: self._show(trainer, module), None)
            self.cost = time.monotonic() - clock
            self.spent += self.cost

    def _show(self, trainer: TrainerView, module: LikelihoodModule) -> None:
        objective = module.objective
        rows = self.sample.rows.to(module.device)
        seen = forecast(objective, whole_eta(objective, rows), rows)
        pictures = {}
        if seen is not None:
            # The figures of the whole split hold for the sample where it is one of the watched ones.
            drawn = calibration(self.sample, seen, module.figures.get(self.sample.split, {}))
            pictures = {name: png(figure) for name, figure in drawn.items()}
        self._write(trainer, objective, seen, pictures)

    def _write(
        self,
        trainer: TrainerView,
        objective: Objective,
        seen: Forecast | None,
        pictures: Mapping[str, bytes],
    ) -> None:
        step = trainer.global_step
        for board in _boards(trainer):
            with errors_as_warning(board):
                weights = [item for item in objective.named_parameters() if item[1].numel()]
                values = [_histogram(f"weights/{name}", tensor.detach()) for name, tensor in weights]
                if seen is not None:
                    _distributions(board.experiment, seen, step)
                values += [_image(tag, content) for tag, content in pictures.items()]
                file_writer(board.experiment).add_summary(Summary(value=values), step)

    def finish(
        self,
        trainer: TrainerView,
        objective: Objective,
        settings: Mapping[str, str | float | bool],
        results: Mapping[str, float],
        text: Mapping[str, str],
        pictures: Mapping[str, bytes],
        seen: Forecast | None,
    ) -> None:
        """Write the final table, the pictures (PNG), and the run's row of the hyperparameter table.

        Only the summaries that start and end a session are written: each run then carries its own columns, and the
        tab shows the union over a sweep.
        """
        self._write(trainer, objective, seen, pictures)
        for board in _boards(trainer):
            with errors_as_warning(board):
                writer = board.experiment
                for tag, page in text.items():
                    writer.add_text(tag, page)
                start, begin, end = hparams(dict(settings), dict(results))
                for summary in (start, begin, end):
                    file_writer(writer).add_summary(summary)
                values = [Summary.Value(tag=name, simple_value=value) for name, value in results.items()]
                file_writer(writer).add_summary(Summary(value=values), trainer.global_step)
                writer.flush()


def _layout(names: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """The charts for which there are figures among these names, by category and title, with patterns of their lines."""
    known = list(names)
    charts = {
        "Distance to the exact estimate": {
            "NLL in nats": r"^(null/|mle/|map/|ridge/)?(train|validation)/nll_nats$",
            "NLL in bits": r"^(null/|mle/|map/|ridge/)?(train|validation)/nll_bits$",
            "Gap to the exact estimate, in nats": r"^(train|validation)/gap_nats$",
            "Skill (0 null model, 1 exact)": r"^(train|validation)/skill$",
            "Excess of a linear model's objective": r"^train/excess_objective$",
        },
        "Calibration": {
            "Coverage minus nominal": r"^margin/(train|validation)/coverage_\d+$",
            "ECE minus that of a calibrated model": r"^margin/(train|validation)/ece_15$",
        },
    }
    layout = {
        category: {
            title: ["Multiline", [pattern]]
            for title, pattern in members.items()
            if any(re.match(pattern, name) for name in known)
        }
        for category, members in charts.items()
    }
    return {category: members for category, members in layout.items() if members}


def _distributions(writer: Any, seen: Forecast, step: int) -> None:
    """Write the precision-recall curve of a binary target, or the histogram of the PIT of a number."""
    if seen.probabilities is not None:
        if seen.probabilities.shape[1] == 2:
            writer.add_pr_curve("precision_recall", seen.y, seen.probabilities[:, 1], step, weights=seen.weight)
        return
    assert seen.pit is not None
    edges = np.linspace(0, 1, 21)
    counts = spread(*seen.pit, seen.weight, edges)
    middle = (edges[1:] + edges[:-1]) / 2
    moments = {"sum": float(counts @ middle), "sum_squares": float(counts @ middle**2)}
    # TensorBoard takes the limit of a first, empty bucket for the left edge.
    limits, held = edges.tolist(), [0.0, *counts.tolist()]
    writer.add_histogram_raw(
        "pit", 0.0, 1.0, float(counts.sum()), **moments, bucket_limits=limits, bucket_counts=held, global_step=step
    )


def _histogram(tag: str, weights: Tensor) -> Summary.Value:
    """The histogram of the elements of a tensor."""
    some = weights.flatten()[:: 1 + weights.numel() // _MAX_WEIGHTS].double().cpu().numpy()
    some = some[np.isfinite(some)]
    counts, edges = np.histogram(some, bins=_NUM_BUCKETS)
    limits, held = edges.tolist(), [0.0, *counts.tolist()]
    moments = {"num": len(some), "sum": some.sum(), "sum_squares": some @ some}
    histogram = HistogramProto(min=edges[0], max=edges[-1], **moments, bucket_limit=limits, bucket=held)
    return Summary.Value(tag=tag, histo=histogram)


def _image(tag: str, content: bytes) -> Summary.Value:
    """A PNG file as TensorBoard stores it, without decoding it (width and height stand in its header)."""
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
    return Summary.Value(tag=tag, image=image)


def _boards(trainer: TrainerView) -> list[Any]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger) and is_usable(logger)]
