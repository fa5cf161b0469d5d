"""Logs the figures of each evaluation beside those of the exact estimates, and writes them to `metrics.csv`."""

import csv
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path

import lightning

from mlefw.callback.event_files import errors_as_warning, is_usable
from mlefw.callback.stored_state import Content
from mlefw.score.yardstick import Yardstick
from mlefw.system.atomic import write_text
from mlefw.system.warning import warn
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_DENSE = 500
"""Every epoch before this one is logged; later on the gap between logged epochs grows in proportion."""


class LogFigures(lightning.Callback):
    """Writes every figure of each evaluation, the learning rate, the rows per second, and flat reference lines.

    `train/step_loss` is the mean over the steps since the previous evaluation of the objective on their batches. The
    state before training, where it is evaluated, is epoch -1. Of very many epochs ever fewer are logged, so that the
    log stays small; the last one always is.

    Args:
        path: of `metrics.csv`.
        yardstick: the exact estimates. The NLL of each is a constant, and is logged with each epoch so that its line
            spans the axis of a chart; beside it is the distance of the state after the epoch.
        min_seconds: least time between writes of the file.
    """

    def __init__(self, path: Path, yardstick: Yardstick, min_seconds: float = 5.0) -> None:
        self.path, self.yardstick, self.min_seconds = path, yardstick, min_seconds
        self.history: list[dict[str, float]] = []
        self.num_resumed = self.num_written = 0
        self.written = time.monotonic()

    def state_dict(self) -> Content:
        """The number of logged epochs; what was logged is in the file."""
        return {"num_logged": len(self.history)}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        self.num_resumed = state_dict["num_logged"]

    def on_fit_start(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Read what a resumed run has logged up to its checkpoint, and forget what came after."""
        if trainer.global_step == 0:
            return
        self.history = read_log(self.path)[: self.num_resumed]
        if len(self.history) != self.num_resumed:
            warn(f"{self.path.name} was changed: it has {len(self.history)} of {self.num_resumed} logged epochs")
        self.write()

    def on_validation_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Log the epoch, if enough epochs have passed since the one logged before."""
        last = self.history[-1]["epoch"] if self.history else -1
        if trainer.sanity_checking or trainer.current_epoch - last >= trainer.current_epoch // _DENSE:
            self._log(trainer, module)

    def on_fit_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Log the last epoch if it was evaluated, and write the file."""
        assert isinstance(module, LikelihoodModule)
        if module.evaluated_step == trainer.global_step:
            self._log(trainer, module)
        self.write()

    def flush(self, trainer: TrainerView) -> None:
        """Write to disk what was logged, before a checkpoint from which a resumed run counts on it."""
        if len(self.history) != self.num_written:
            self.write()
        for logger in trainer.loggers:
            if is_usable(logger):
                logger.save()

    def write(self) -> None:
        """Write `metrics.csv` anew."""
        names = list(dict.fromkeys(name for row in self.history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.path, text.getvalue())
        self.written, self.num_written = time.monotonic(), len(self.history)

    def _log(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        assert isinstance(module, LikelihoodModule)
        values: dict[str, float] = {}
        for split, figures in module.figures.items():
            values |= {f"{split}/{name}": value for name, value in figures.items()}
            values |= {f"margin/{split}/{name}": value for name, value in margins(figures).items()}
            distances = self.yardstick.epoch(split, figures, module.objective)
            values |= {f"{split}/{name}": value for name, value in distances.items()}
            for name, nats in self.yardstick.mean_nll.items():
                if split in nats:
                    values[f"{name}/{split}/nll_nats"] = nats[split]
                    values[f"{name}/{split}/nll_bits"] = nats[split] / math.log(2)
        total, number = module.losses
        values |= {"train/step_loss": total / number} if number else {}
        values["learning_rate"] = float(module.optimizer.param_groups[0]["lr"])
        if not trainer.sanity_checking:
            values["rows_per_s"] = module.rows_seen / max(module.seconds, 1e-9)
        epoch = -1 if trainer.sanity_checking else trainer.current_epoch
        if self.history and self.history[-1]["step"] == trainer.global_step:
            return
        self.history.append({"epoch": epoch, "step": trainer.global_step, **values})
        for logger in trainer.loggers:
            if is_usable(logger):
                with errors_as_warning(logger):
                    logger.log_metrics({"epoch": epoch, **values}, step=trainer.global_step)
        if time.monotonic() - self.written >= self.min_seconds:
            self.write()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a file that `LogFigures` wrote; none where there is none, or it is not one."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
        whole = ("epoch", "step")
        return [{name: int(text) if name in whole else float(text) for name, text in row.items()} for row in rows]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def margins(figures: Mapping[str, float]) -> dict[str, float]:
    """Calibration figures minus those expected of a calibrated model on as many rows: zero is right."""
    found = {}
    for name, value in figures.items():
        if name.startswith("coverage_") and name.removeprefix("coverage_").isdigit():
            found[name] = value - int(name.removeprefix("coverage_")) / 100
    if "ece_15" in figures and "ece_null" in figures:
        found["ece_15"] = figures["ece_15"] - figures["ece_null"]
    return found
