"""How fast training is: ratios to the bare eager loop and to Lightning's defaults, in one run, on one thread.

    OMP_NUM_THREADS=1 python scripts/bench/step.py [--rounds N] [--peer] [--only TEXT] [mlefw overrides …]

The network is 16-64-64-2 (SiLU) with a heteroscedastic Gaussian likelihood and Adam. *Bare* is a plain loop: rows
shuffled once an epoch and sliced, features, target and likelihood in float32, `Adam(fused=True)`, no evaluation, no
logs. *Ours* is `mlefw train` without its reading of data: the trainer with progress line, TensorBoard, metrics.csv,
checkpoints, all metrics of training and validation rows, and the likelihood in float64. *Lightning* is its defaults:
DataLoader(TensorDataset), `self.log` of the loss in training and validation, TensorBoard, checkpoint, progress bar.

Per step: process CPU time from the start of the first epoch after 150 steps (of the second, where there are fewer) to
that of the last, over the steps there. Whole fit: all of `fit`, for ours with trainer, callbacks and pictures. Variants
take turns; a ratio is the median over the rounds.
"""

import argparse
import contextlib
import gc
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import lightning
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mlefw.configuration.read import read_settings, settings_of
from mlefw.run import checkpoint, fitting
from mlefw.run.directory import claim
from mlefw.run.prepare import estimate, prepare
from mlefw.score.yardstick import Yardstick
from mlefw.system.trust import trust

_COMPILED = 150
"""Steps after which a step that is worth it has been compiled."""


class Case(NamedTuple):
    """A batch size (0: all rows), the number of training rows, and how many epochs one round takes."""

    batch: int
    num_rows: int
    num_epochs: int
    whole: bool = False

    @property
    def name(self) -> str:
        """As the table has it."""
        batch = f"batch {self.batch}" if self.batch else "full batch"
        return f"{batch}, {self.num_rows} rows, {self.num_epochs} epochs{', whole fit' if self.whole else ''}"


class Clock(lightning.Callback):
    """Process CPU time at the start of each epoch; `latest` is the one that was made last."""

    latest: ClassVar["Clock"]

    def __init__(self) -> None:
        Clock.latest = self
        self.times: list[float] = []
        self.steps: list[int] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Note it."""
        self.times.append(time.process_time())
        self.steps.append(trainer.global_step)

    def per_step(self) -> float:
        """Seconds a step, without the first epoch and those in which a compiler may be at work."""
        first = next((k for k, steps in enumerate(self.steps) if steps >= _COMPILED), 1)
        return (self.times[-1] - self.times[first]) / (self.steps[-1] - self.steps[first])


def network(num_features: int = 16) -> nn.Sequential:
    """The network of all variants."""
    hidden = [nn.Linear(num_features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()]
    return nn.Sequential(*hidden, nn.Linear(64, 2))


def nll(raw: Tensor, y: Tensor) -> Tensor:
    """Mean Gaussian NLL without its constant."""
    loc, log_scale = raw.unbind(-1)
    return (0.5 * ((y - loc) * torch.exp(-log_scale)).square() + log_scale).mean()


def bare(case: Case, x: Tensor, y: Tensor) -> float:
    """The loop that anyone would write."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    size, times, steps = case.batch or case.num_rows, [time.process_time()], 0
    for _ in range(case.num_epochs):
        order = torch.randperm(case.num_rows)
        shuffled, target, total = (x[order], y[order], torch.zeros(())) if case.batch else (x, y, torch.zeros(()))
        for start in range(0, case.num_rows, size):
            optimizer.zero_grad()
            loss = nll(model(shuffled[start : start + size]), target[start : start + size])
            loss.backward()
            optimizer.step()
            total += loss.detach()
            steps += 1
        times.append(time.process_time())
    if case.whole:
        return times[-1] - times[0]
    return (times[-2] - times[1]) / (steps // case.num_epochs * (case.num_epochs - 2))


class Peer(lightning.LightningModule):
    """What a tutorial shows."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss, logged."""
        loss = nll(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """The loss, logged."""
        self.log("val_loss", nll(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def peer(case: Case, x: Tensor, y: Tensor, folder: Path) -> float:
    """Lightning's defaults."""
    clock = Clock()
    rows, size = TensorDataset(x[: case.num_rows], y[: case.num_rows]), case.batch or case.num_rows
    held_out = TensorDataset(x[case.num_rows :], y[case.num_rows :])
    start = time.process_time()
    trainer = lightning.Trainer(
        max_epochs=case.num_epochs, accelerator="cpu", default_root_dir=folder, callbacks=[clock]
    )
    trainer.fit(Peer(), DataLoader(rows, size, shuffle=True), DataLoader(held_out, size))
    return time.process_time() - start if case.whole else clock.per_step()


def ours(case: Case, table: Path, folder: Path, overrides: list[str]) -> float:
    """A run of mlefw, from the trainer to the restored best state."""
    total = len(np.load(folder / "x.npy", mmap_mode="r"))
    settings = [
        *("head=heteroscedastic", "data=parquet", f"data.path={table}", "data.target=y"),
        *("data.test_fraction=0.0", f"data.validation_fraction={1 - case.num_rows / total}"),
        *("trainer.accelerator=cpu", f"trainer.max_epochs={case.num_epochs}", "early_stopping.patience=null"),
        *(("batch=mini", f"batch.size={case.batch}") if case.batch else ("batch=full",)),
        *overrides,
    ]
    run_dir = claim(folder / f"run_{time.monotonic_ns()}")
    config = settings_of({**read_settings("train", settings, [], []), "run_dir": str(run_dir)})
    prepared = prepare(config, None)
    exact = estimate(config, prepared)
    yardstick = Yardstick(exact, prepared.estimand.objective, prepared.data.splits)
    trust([__name__])
    config = config.replaced(callback={**config.callback, "clock": {"_target_": f"{__name__}.Clock"}})
    start = time.process_time()
    card = checkpoint.card(config, prepared.data, prepared.estimand.objective.population)
    fitting.fit(config, run_dir, prepared, yardstick, card, None)
    return time.process_time() - start if case.whole else Clock.latest.per_step()


def simulate(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal features; a target whose location and scale both bend."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_rows, 16))
    loc, log_scale = np.sin(x[:, 0]) + x[:, 1] * x[:, 2], 0.4 * x[:, 3] - 0.5
    return x, loc + np.exp(log_scale) * random.normal(size=num_rows)


def measure(case: Case, rounds: int, with_peer: bool, variants: dict[str, list[str]]) -> dict[str, list[float]]:
    """Seconds of every variant in every round; a tenth of the training rows is held out beside them."""
    import pyarrow as pa
    from pyarrow import parquet

    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = simulate(case.num_rows * 11 // 10)
        np.save(folder / "x.npy", x)
        table = folder / "rows.parquet"
        parquet.write_table(pa.table({**{f"x{k}": x[:, k] for k in range(16)}, "y": y}), table)
        inputs = torch.from_numpy(x).float(), torch.from_numpy(y).float()
        calls: dict[str, Callable[[], float]] = {"bare": lambda: bare(case, *(t[: case.num_rows] for t in inputs))}
        for label, overrides in variants.items():
            calls[label] = lambda overrides=overrides: ours(case, table, folder, overrides)
        if with_peer:
            calls["Lightning"] = lambda: peer(case, *inputs, folder)
        for _ in range(rounds):
            for label, call in calls.items():
                gc.collect()
                with silent():
                    found.setdefault(label, []).append(call())
    return found


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let progress be drawn as on a terminal, into nothing."""
    os.environ["FORCE_COLOR"] = "1"
    saved = os.dup(1), os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1), os.dup2(sink, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(sink)
        del os.environ["FORCE_COLOR"]


def table(cases: list[Case], rounds: int, with_peer: bool, variants: dict[str, list[str]]) -> Table:
    """One row for each case: the bare loop in microseconds a step (ms for a fit), the others as ratios to it."""
    names = [*variants, *(["Lightning"] if with_peer else [])]
    shown = Table("", "bare", *names, *([f"Lightning / {next(iter(variants))}"] if with_peer else []))
    for case in cases:
        found = measure(case, rounds, with_peer, variants)
        unit = "ms" if case.whole else "us"
        base = f"{statistics.median(found['bare']) * (1e3 if case.whole else 1e6):.0f} {unit}"
        ratios = {
            name: statistics.median(a / b for a, b in zip(found[name], found["bare"], strict=True)) for name in names
        }
        cells = [f"{ratio:.2f}" for ratio in ratios.values()]
        if with_peer:
            cells.append(f"{ratios['Lightning'] / ratios[names[0]]:.1f}")
        shown.add_row(case.name, base, *cells)
    return shown


CASES = [
    Case(32, 50_000, 4),
    Case(128, 50_000, 8),
    Case(1024, 50_000, 20),
    Case(0, 50_000, 20),
    Case(32, 8_000, 30, whole=True),
    Case(128, 8_000, 30, whole=True),
    Case(1024, 8_000, 30, whole=True),
    Case(0, 1_000, 3000, whole=True),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="also Lightning's defaults (minutes)")
    parser.add_argument("--compile", action="store_true", help="also ours with compile=true")
    parser.add_argument("--only", default="", help="the cases whose name holds this")
    parser.add_argument("overrides", nargs="*", help="of mlefw, for ours")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    variants = {"ours": chosen.overrides}
    if chosen.compile:
        variants["compiled"] = [*chosen.overrides, "compile=true"]
    cases = [case for case in CASES if chosen.only in case.name]
    Console(width=150).print(table(cases, chosen.rounds, chosen.peer, variants))


if __name__ == "__main__":
    main()
