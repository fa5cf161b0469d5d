"""A TensorBoard logger that warns once, and lets training go on, where its files cannot be written."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

from mlefw.callback.event_records import Writer
from mlefw.system.warning import warn
from mlefw.training.lightning_internals import rank_zero_experiment

_lost: weakref.WeakSet[Logger] = weakref.WeakSet()


@contextmanager
def errors_as_warning(logger: Logger) -> Iterator[None]:
    """Warn where the block cannot write a log, and give that log up: nothing more is written to it (`is_usable`)."""
    try:
        yield
    except (OSError, ValueError) as error:
        # Lightning turns the error of writing a scalar into a ValueError.
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
        if not isinstance(cause, OSError):
            raise
        if logger not in _lost:
            _lost.add(logger)
            what = cause.strerror or cause
            warn(f"{type(logger).__name__}: the log could not be written ({what}); training goes on without it")


def is_usable(logger: Logger) -> bool:
    """Whether the log has not been given up."""
    return logger not in _lost


class EventFiles(TensorBoardLogger):
    """Lightning's TensorBoard logger, but that a full disk or a deleted folder leads to one warning."""

    def __init__(self, save_dir: str, name: str = "", version: str = "", purge_step: int | None = None) -> None:
        # From `purge_step` on a resumed run writes anew: TensorBoard leaves out what was written there before.
        super().__init__(save_dir, name, version, purge_step=purge_step)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of summaries, which is made when it is first asked for."""
        if self._experiment is None:
            self._experiment = Writer(self.log_dir, **self._kwargs)
        return self._experiment

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write all scalars as one event: an event for each takes many times as long."""
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._attempt(lambda: self._write(Summary(value=values), step))

    @rank_zero_only
    def _write(self, summary: Summary, step: int | None) -> None:
        self.experiment.file_writer.add_summary(summary, step)

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Write settings."""
        self._attempt(lambda: super(EventFiles, self).log_hyperparams(params, metrics, step))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Write nothing: the graph of a model says little, and tracing it may fail."""

    def save(self) -> None:
        """Write what is not yet on disk."""
        self._attempt(super().save)

    def finalize(self, status: str) -> None:
        """Write what is not yet on disk, and close."""
        self._attempt(lambda: super(EventFiles, self).finalize(status))

    def _attempt(self, write: Any) -> None:
        if is_usable(self):
            with errors_as_warning(self):
                write()
