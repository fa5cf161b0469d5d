"""What watches a training beside mlefw's own callbacks: callbacks, loggers and the profiler of the settings."""

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from mlefw.callback.progress import ShowProgress
from mlefw.configuration.admission import admit, admitted
from mlefw.configuration.check import nearest
from mlefw.configuration.instantiate import class_of, instantiate, make
from mlefw.configuration.lightning_doors import DOORS, Door, door_of
from mlefw.configuration.settings import Node, Settings
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.metric.accumulator import Accumulator
from mlefw.run.build import Data, build_metrics
from mlefw.run.estimand import Estimand
from mlefw.system.own_folder import replace_links
from mlefw.system.trust import trusted

CHECKPOINTS = "model_checkpoints"
"""Folder of a run for the checkpoints of Lightning's callbacks; mlefw's own are in `checkpoints`."""

_LOG_FILES = ("hparams.yaml", "metrics.csv")
"""Files that Lightning's loggers write; links in their place are removed first, so that nothing outside is written."""

_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def check(config: Settings, estimand: Estimand, data: Data) -> None:
    """Refuse callbacks and loggers that could not do their work.

    Args:
        config: the settings.
        estimand: the objective.
        data: the rows.

    Raises:
        UsageError: a package is missing, a callback writes to loggers and there are none, or it watches a figure that
            there is not.
    """
    for path, found, door in _doors(config):
        name = found.__name__
        if door.package and find_spec(door.package) is None:
            raise UsageError(
                f"{path}: {name} needs the package {door.package}, which is not installed"
                f"\n  expected: pip install 'mlefw[{door.extra}]'"
            )
        if door.needs_logger and not config.logger:
            raise UsageError(
                f"{path}: {name} writes to loggers, and there are none\n  expected: logger=tensorboard, say"
            )
    for node in config.logger.values():
        if (check_settings := getattr(class_of(admit("logger", node)), "check_settings", None)) is not None:
            check_settings(node)
    # A setting that a callback refuses shows here, before anything is written.
    build_callbacks(config, Path())
    watching = {name: node for name, node in config.callback.items() if _is_of_lightning(node) and node.get("monitor")}
    known = _figures(config, estimand, data) if watching else []
    for name, node in watching.items():
        always = ("epoch", "step") if node["_target_"].endswith("ModelCheckpoint") else ()
        if (monitor := node["monitor"]) not in (*known, *always):
            hint = nearest(str(monitor), known) or f" Known: {', '.join(known[:4])}, …"
            raise UsageError(f"callback.{name}.monitor={monitor}: an evaluation has no such figure.{hint}")


def _is_of_lightning(node: Node) -> bool:
    return str(node["_target_"]).startswith("lightning.")


@torch.no_grad()
def _figures(config: Settings, estimand: Estimand, data: Data) -> list[str]:
    """The names of the figures of an evaluation, found by evaluating one row: `validation/nll_nats` and the like."""
    objective, row = estimand.objective, data.train.take(slice(0, 1))
    objective.eval()
    eta, y, weight = objective.observations(row, objective.eta(row.x, row.offset))
    sums = Accumulator(build_metrics(config, objective.head, estimand.token_bytes))
    sums.add(sums.of_block(objective.head(eta), y, weight, row.num_rows if row.positions else None))
    objective.train()
    names = [*sums.figures(), "penalty", "objective"]
    watched = [split for split in ("validation", "train") if split in data.splits]
    return [f"{split}/{name}" for split in watched for name in names]


def takes_single_steps(config: Settings) -> bool:
    """Whether something watches single steps, so that Lightning has to get them one at a time."""
    trainer = config.trainer.node
    is_watched = trainer.get("profiler") is not None or trainer.get("enable_progress_bar") is True
    classes = [class_of(admit("callback", node)) for node in config.callback.values()]
    return is_watched or any(door.by_step for _, _, door in _doors(config)) or any(map(_has_step_hook, classes))


def _has_step_hook(found: type) -> bool:
    """Whether a class of a plugin has a hook of its own beside each step."""
    hooks = [getattr(found, name, None) for name in ("on_train_batch_start", "on_train_batch_end")]
    # The classes of Lightning that look at single steps are known by name (`Door.by_step`).
    return any(getattr(hook, "__module__", "mlefw").partition(".")[0] not in ("mlefw", "lightning") for hook in hooks)


def build_loggers(config: Settings, run_dir: Path, purge_step: int | None = None) -> list[Logger]:
    """The loggers of a run, which write below its directory; entries in its logs from `purge_step` on are void.

    Of several processes the first alone writes: two that open a store at once, such as a file of SQLite, may fail.
    """
    if topology.rank(config.trainer) > 0:
        return [DummyLogger() for _ in config.logger]
    parts = admitted({"logger": config.logger, "run_dir": str(run_dir)}, trusted())
    loggers = [make(part, purge_step=purge_step) for part in parts.values()]
    for logger in loggers:
        folder: Any = getattr(logger, "log_dir", None)
        for name in _LOG_FILES if isinstance(folder, str) else ():
            replace_links(Path(folder) / name)
    return loggers


def build_callbacks(config: Settings, run_dir: Path) -> list[Any]:
    """The callbacks of the settings, beside those that a run always has; a bar of Lightning replaces mlefw's line."""
    checkpoints = str(run_dir / CHECKPOINTS)
    callbacks = [
        instantiate("callback", node, **({} if node.get("dirpath") else {"dirpath": checkpoints}))
        for node in config.callback.values()
    ]
    has_bar = config.trainer.node.get("enable_progress_bar") is True or any(map(_is_bar, callbacks))
    callbacks = [one for one in callbacks if not (has_bar and isinstance(one, ShowProgress))]
    for one in callbacks:
        if type(one).__module__.startswith("lightning."):
            # Commands silence Lightning's messages; those of a callback that somebody chose are what it is for.
            logging.getLogger(type(one).__module__).setLevel(logging.INFO)
    return callbacks


def bar_settings(callbacks: Sequence[lightning.Callback]) -> dict[str, bool]:
    """The trainer's setting without which Lightning refuses a progress bar among the callbacks."""
    return {"enable_progress_bar": True} if any(map(_is_bar, callbacks)) else {}


def _is_bar(callback: Any) -> bool:
    return isinstance(callback, ProgressBar)


def build_profiler(config: Settings, run_dir: Path) -> Profiler | None:
    """The profiler of the settings, whose traces go into the run directory; None for none.

    Of several processes only the first is measured: all would write to the same place.
    """
    name = config.trainer.node.get("profiler")
    if name is None or topology.rank(config.trainer) > 0:
        return None
    return _PROFILERS[name](dirpath=str(run_dir), filename="profile")


def profile(run_dir: Path) -> str:
    """The report of the profiler of a training that has ended, which is then `profile.txt` of the run directory."""
    # Lightning puts the stage and the number of the process into the name.
    (written,) = run_dir.glob("fit-profile*.txt")
    return written.replace(run_dir / "profile.txt").read_text(encoding="utf-8")


def _doors(config: Settings) -> Iterator[tuple[str, type, Door]]:
    """The path, the class and the door of each callback and logger that is one of Lightning."""
    for slot in DOORS:
        for name, node in getattr(config, slot).items():
            found = class_of(admit(slot, node))
            if (door := door_of(slot, found)) is not None:
                yield f"{slot}.{name}", found, door
