"""The fit of a run: Lightning's trainer with the callbacks that log, keep and resume."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.callbacks import EarlyStopping

from mlefw import devices, ranks, resumption, score, training
from mlefw.build import Data
from mlefw.callback.board import WriteBoard
from mlefw.callback.coefficients import RecordCoefficients
from mlefw.callback.figures import LogFigures
from mlefw.callback.keep import KeepCheckpoints
from mlefw.callback.resume import KEY, Resumable
from mlefw.callback.short_steps import WarnOfShortSteps
from mlefw.forecast import Sample
from mlefw.interrupt import deferred, raise_pending
from mlefw.preparation import Prepared


@dataclass(frozen=True)
class Fit:
    """What training leaves behind."""

    trainer: lightning.Trainer
    keeper: KeepCheckpoints
    log: LogFigures
    board: WriteBoard
    recorder: RecordCoefficients | None
    rows_per_s: float


def fit(
    config: dict[str, Any],
    run_dir: Path,
    prepared: Prepared,
    yardstick: score.Yardstick,
    card: dict[str, Any],
    content: dict[str, Any] | None,
) -> Fit:
    """Train from the start, or on from the `content` of a checkpoint; the best state is in the objective then.

    Raises:
        NumericalError, StorageError: during the training.
        Stopped: by a signal, after what was reached is on disk.
    """
    data, estimand, exact = prepared.data, prepared.estimand, yardstick.exact
    module = training.build_module(config, estimand, prepared.rows)
    log = LogFigures(run_dir / "metrics.csv", yardstick)
    keep = KeepCheckpoints(run_dir / "checkpoints", **config["checkpoint"], before=log.settle)
    resumable = Resumable(content, run_dir / "summary.json")
    sample = Sample.of(data.splits, data.schema.target, data.schema.labels)
    text = {"settings": "    " + yaml.safe_dump(config, sort_keys=False).replace("\n", "\n    ")}
    board = WriteBoard(text, sample, log)
    callbacks: list[lightning.Callback] = [resumable, log, board, keep]
    recorder = RecordCoefficients(exact.optimum) if exact.optimum is not None else None
    callbacks += [recorder] if recorder is not None else []
    callbacks += _stopping(config, data)
    if devices.is_ddp(config["trainer"]):
        callbacks.append(WarnOfShortSteps())
    trainer = training.build_trainer(config, run_dir, card, callbacks, resumption.purge_step(content))
    clock = time.monotonic()
    with deferred():
        trainer.fit(module, datamodule=prepared.rows)
    ranks.close()
    raise_pending()
    seconds = time.monotonic() - clock
    keep.restore_best(module)
    module.objective.cpu()
    epochs = trainer.current_epoch - (0 if content is None else content[KEY]["epoch"])
    return Fit(trainer, keep, log, board, recorder, epochs * data.train.num_rows / max(seconds, 1e-9))


def follow(config: dict[str, Any], run_dir: Path, prepared: Prepared, content: dict[str, Any] | None) -> None:
    """Train as one of the processes that write nothing."""
    module = training.build_module(config, prepared.estimand, prepared.rows)
    callbacks: list[lightning.Callback] = [Resumable(content), *_stopping(config, prepared.data)]
    trainer = training.build_trainer(config, run_dir, {}, callbacks, resumption.purge_step(content))
    trainer.fit(module, datamodule=prepared.rows)
    ranks.close()


def _stopping(config: dict[str, Any], data: Data) -> list[lightning.Callback]:
    patience, delta = config["early_stopping"]["patience"], config["early_stopping"]["min_delta"]
    if patience is None or "validation" not in data.splits:
        return []
    return [EarlyStopping("validation/nll_nats", patience=patience, min_delta=delta, mode="min", check_finite=False)]
