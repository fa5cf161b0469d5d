"""Small runs in this process, and a callback that looks at them: what the tables of Lightning's doors share."""

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch import callbacks, loggers
from pyarrow.csv import write_csv

from mlefw.command import train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.system import trust
from mlefw.system.process_state import preserved

QUICK = (
    *("model=linear", "batch.size=12", "trainer.max_epochs=2", "baseline=none", "scheduler=none", "report=false"),
    *("plots=false", "logger=none", "callback=none", "data=csv", "data.target=y", "data.path=d.csv"),
)
"""36 training and 12 validation rows of the table `d.csv` (60 rows): two epochs of three steps."""
PLUGINS = ("lightning_runs", "lightning")


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the table `d.csv` into a folder, which becomes the working directory, and admit the plugins."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 2))
    monkeypatch.chdir(folder)
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -1.0] + random.normal(size=60)})
    write_csv(table, "d.csv")
    monkeypatch.setattr(trust, "_in_process", dict.fromkeys(PLUGINS))


@dataclass
class Run:
    """A run that has ended: its directory, its summary, and what Lightning's message log has."""

    folder: Path
    summary: dict[str, Any]
    messages: str

    def column(self, name: str, file: str = "metrics.csv") -> list[float]:
        """The values of a column of a CSV file of the run, without empty cells."""
        with (self.folder / file).open(newline="") as rows:
            return [float(row[name]) for row in csv.DictReader(rows) if row.get(name)]


@dataclass
class Seen:
    """What the callback `Spy` has seen: values of the probe at each hook, by the name of the hook."""

    at: dict[str, list[Any]] = field(default_factory=dict)
    probe: Callable[..., Any] = lambda trainer, module: None


SEEN = Seen()


class Spy(lightning.Callback):
    """Calls the probe of `SEEN` with the trainer, the module and the chunk, if there is one."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        self._note("fit", trainer, module)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self._note("step", trainer, module, batch)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self._note("evaluation", trainer, module)

    def _note(self, hook: str, *found: Any) -> None:
        SEEN.at.setdefault(hook, []).append(SEEN.probe(*found) if len(found) == 2 else SEEN.probe(*found[:2], found[2]))


class Blocks(lightning.Callback):
    """Counts the blocks of rows of all evaluations, in `SEEN`."""

    def on_validation_batch_end(self, *args: Any, **more: Any) -> None:
        SEEN.at.setdefault("block", []).append(None)


class Losses(lightning.Callback):
    """What somebody who knows Lightning writes: it looks at each step, logs, and keeps a dict that grows."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.losses[f"step {trainer.global_step}"] = float(outputs["loss"])

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.log("mine/num_losses", float(len(self.losses)))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = dict(state["losses"])


class Logs(lightning.Callback):
    """Logs at the end of each epoch alone."""

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.log("mine/epoch", float(trainer.current_epoch))


class Fails(lightning.Callback):
    """Fails after the fourth step."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step >= 4:
            raise ArithmeticError("on purpose")


def _inherited(base: type) -> type:
    return type(f"My{base.__name__}", (base,), {"__module__": __name__, "__doc__": "A class of a plugin."})


for _base in [*(getattr(callbacks, name) for name in callbacks.__all__), *map(loggers.__dict__.get, loggers.__all__)]:
    # A plugin may inherit from any class of Lightning.
    globals()[f"My{_base.__name__}"] = _inherited(_base)


def settings(*given: str, run_dir: Path | str = "run") -> Any:
    """The settings of a small run, checked as a command checks them."""
    names = {item.partition("=")[0] for item in given}
    quick = [item for item in QUICK if item.partition("=")[0] not in names]
    return read_settings("train", [*quick, *given, f"run_dir={run_dir}"], [], PLUGINS)


def fit(folder: Path, *given: str, probe: Callable[..., Any] | None = None) -> Run:
    """Train; with a probe, what it finds at each hook is in `SEEN`."""
    SEEN.at, SEEN.probe = {}, probe or (lambda trainer, module, chunk=None: None)
    spy = ["+callback.spy._target_=lightning_runs.Spy"] if probe is not None else []
    config = settings_of(settings(*given, *spy, run_dir=folder))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("lightning.pytorch")
    with preserved():
        log.addHandler(handler)
        summary = train.run(config, folder)
    return Run(folder, summary, "\n".join(lines))


def in_a_step(found: Callable[[], Any]) -> Callable[..., Any]:
    """A probe of the state of the process."""
    return lambda trainer, module, chunk=None: found()


def weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of the objective in the content of a checkpoint."""
    return {name: value for name, value in content["state_dict"].items() if name.startswith("objective.")}
