"""The training of a run: Lightning's trainer with the callbacks that log, save, stop and resume."""

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning

from mlefw.callback.board import WriteBoard
from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.callback.coefficients import RecordCoefficients
from mlefw.callback.figures import LogFigures
from mlefw.callback.other_logs import WriteOtherLogs
from mlefw.callback.patience import StopWithoutProgress
from mlefw.callback.resume import KEY, Resumable
from mlefw.callback.short_steps import WarnOfShortSteps
from mlefw.callback.stored_state import Content
from mlefw.configuration.read import as_yaml
from mlefw.configuration.scalars import scalars
from mlefw.configuration.settings import Settings
from mlefw.distributed import ranks, topology
from mlefw.report.forecast import Sample
from mlefw.run import lightning_parts, resume, sharded
from mlefw.run.prepare import Prepared
from mlefw.run.trainer import build_module, build_trainer
from mlefw.score.yardstick import Yardstick
from mlefw.system.allocator import keep_freed_memory
from mlefw.system.signals import deferred, raise_pending
from mlefw.system.warning import warn
from mlefw.training.datamodule import RowsModule
from mlefw.training.recovery import History
from mlefw.training.trainer_view import TrainerView
from mlefw.training.waiting import epochs_to_wait

_PATIENCE = 50
"""Default patience of early stopping in epochs (see `epochs_to_wait`, which adapts it)."""


@dataclass(frozen=True)
class RunCallbacks:
    """The callbacks that every run has, beside those of `callback=`."""

    resumable: Resumable
    log: LogFigures
    board: WriteBoard
    others: WriteOtherLogs
    keep: KeepCheckpoints
    recorder: RecordCoefficients | None
    stopping: StopWithoutProgress | None

    @property
    def callbacks(self) -> list[lightning.Callback]:
        """The callbacks that are not None, in the order in which Lightning has to call them."""
        known = (self.resumable, self.log, self.board, self.others, self.keep, self.recorder, self.stopping)
        return [callback for callback in known if callback is not None]


@dataclass(frozen=True)
class Fit:
    """What training leaves behind.

    Attributes:
        trainer: Lightning's trainer.
        keeper: knows the best epoch and its NLL.
        log: holds the figures of all evaluations.
        board: writes TensorBoard's log.
        others: writes to other loggers.
        recorder: the coefficients of a linear model over epochs; None for other models.
        rows_per_s: training rows per second, evaluations included.
        seconds: duration of the fit, with the building of the trainer.
    """

    trainer: TrainerView
    keeper: KeepCheckpoints
    log: LogFigures
    board: WriteBoard
    others: WriteOtherLogs
    recorder: RecordCoefficients | None
    rows_per_s: float
    seconds: float


def run_callbacks(
    config: Settings,
    run_dir: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    content: Content | None = None,
) -> RunCallbacks:
    """The callbacks of a new run, or of one that is resumed from the `content` of a checkpoint."""
    data, exact = prepared.data, yardstick.exact
    log = LogFigures(run_dir / "metrics.csv", yardstick)
    keep = KeepCheckpoints(run_dir / "checkpoints", **vars(config.checkpoint), before=log.flush)
    keep.together = topology.is_sharded(config.trainer)
    resumable = Resumable(content, run_dir / "summary.json")
    sample = Sample.of(data.splits, data.schema.target, data.schema.labels, data.schema.row_shape, data.units)
    text = {"settings": "    " + as_yaml(config.plain).replace("\n", "\n    ")}
    recorder = RecordCoefficients(exact.optimum) if exact.optimum is not None else None
    board = WriteBoard(text, sample, log)
    if keep.together:
        # The first process alone draws, and could not pass rows through a network that it has a share of.
        board.share = 0.0
    others = WriteOtherLogs(told(config) if config.trainer.node.get("enable_autolog_hparams", True) else {})
    return RunCallbacks(resumable, log, board, others, keep, recorder, _stopping(config, prepared.rows))


def fit(
    config: Settings,
    run_dir: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    card: Content,
    content: Content | None,
) -> Fit:
    """Train from the start, or from the `content` of a checkpoint; the objective then has the best state.

    Raises:
        NumericalError, StorageError: during the training.
        Stopped: by a signal; the state reached is saved before.
    """
    clock = time.monotonic()
    module = build_module(config, sharded.trained_estimand(config, prepared.estimand, True), prepared.rows)
    watchers = run_callbacks(config, run_dir, prepared, yardstick, content)
    callbacks = watchers.callbacks + ([WarnOfShortSteps()] if topology.is_shared(config.trainer) else [])
    network = sharded.network(module)
    limit = prepared.rows.num_limited
    trainer = build_trainer(config, run_dir, card, callbacks, resume.purge_step(content), network, limit)
    training_clock = time.monotonic()
    with deferred(), keep_freed_memory(), ranks.naming_lost_ranks(), module.around:
        trainer.fit(module, datamodule=prepared.rows)
        if watchers.keep.together:
            sharded.gather(module, watchers.keep, prepared.estimand.objective)
    ranks.close()
    raise_pending()
    if config.trainer.node.get("profiler") is not None:
        sys.stderr.write(lightning_parts.profile(run_dir))
    _warn_of_recoveries(module.recovery.history)
    seconds = time.monotonic() - training_clock
    if not watchers.keep.together:
        watchers.keep.restore_best(module)
        module.objective.cpu()
    epochs = trainer.current_epoch - (0 if content is None else content[KEY]["epoch"])
    rows_per_s = epochs * prepared.data.train.num_rows / max(seconds, 1e-9)
    return finished(trainer, watchers, rows_per_s, time.monotonic() - clock)


def told(config: Settings) -> dict[str, str | float | bool]:
    """The settings that loggers get, by name: those that may change a trained model."""
    # TensorBoard shows those first in which runs differ, so that a sweep's own settings need not be known here.
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in scalars(config.plain).items()
    }


def _warn_of_recoveries(history: History) -> None:
    """Warn of a training that diverged on its way."""
    if not history.epochs:
        return
    epochs = ", ".join(map(str, history.epochs))
    text = (
        f"training diverged in epoch {epochs}, and went on from its last evaluated state with half the learning rate "
        "each time: a smaller optimizer.lr may fit better"
    )
    if history.rows:
        rows = ", ".join(map(str, history.rows))
        text += f". Training rows whose own gradients dominated (positions from 0): {rows}"
    warn(text)


def finished(trainer: TrainerView, watchers: RunCallbacks, rows_per_s: float, seconds: float) -> Fit:
    """The `Fit` of a trainer whose training is done."""
    return Fit(
        trainer, watchers.keep, watchers.log, watchers.board, watchers.others, watchers.recorder, rows_per_s, seconds
    )


def follow(config: Settings, run_dir: Path, prepared: Prepared, content: Content | None) -> None:
    """Train as one of several processes, other than the first, which alone writes."""
    module = build_module(config, sharded.trained_estimand(config, prepared.estimand, False), prepared.rows)
    callbacks: list[lightning.Callback] = [Resumable(content)]
    together = topology.is_sharded(config.trainer)
    keep = KeepCheckpoints(run_dir / "checkpoints", **vars(config.checkpoint), together=together)
    # A state that is shared out is gathered for each file from all processes.
    callbacks += [keep] if together else []
    stopping = _stopping(config, prepared.rows)
    callbacks += [stopping] if stopping is not None else []
    network = sharded.network(module)
    limit = prepared.rows.num_limited
    trainer = build_trainer(config, run_dir, {}, callbacks, resume.purge_step(content), network, limit)
    with deferred() if together else nullcontext(), ranks.naming_lost_ranks(), module.around:
        trainer.fit(module, datamodule=prepared.rows)
        if together:
            sharded.gather(module, keep, None)
    ranks.close()


def _stopping(config: Settings, rows: RowsModule) -> StopWithoutProgress | None:
    """Early stopping; None where it is switched off or there are no validation rows."""
    patience = epochs_to_wait(config.early_stopping.patience, _PATIENCE, rows.evaluation_schedule.num_steps(1))
    if patience is None or "validation" not in rows.splits:
        return None
    return StopWithoutProgress(patience, config.early_stopping.min_delta)
