"""What a search finds for its time: samplers, halving and populations beside a grid and Optuna's plain loop.

    OMP_NUM_THREADS=1 python scripts/bench/search.py [--trials 64] [--epochs 27] [--quick]

A trial trains a network on the digits of scikit-learn; learning rate, weight decay and dropout vary. The plain loop is
`study.optimize` around Lightning's trainer with its defaults: the same rows, network, space, epochs and optimiser, and
the least validation NLL of all epochs. All run one trial at a time, on one thread, without a report of the sweep.

Three tables. What is found: validation NLL, in nats per row, and CPU seconds of all processes, start included; the CPU
time at which an NLL was reached is the share of the clock time. Exact estimates are left out. What a trial costs: the
slope between 2 trials and all, so that imports are in none; beside it a whole command. Two processes on one journal: as
many trials as one has.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

LR, DECAY, DROPOUT = (1e-4, 1e-1), (1e-6, 1e-1), (0.0, 0.5)
SPACE = (
    f"optimizer.lr=tag(log,interval({LR[0]},{LR[1]}))",
    f"optimizer.weight_decay=tag(log,interval({DECAY[0]},{DECAY[1]}))",
    f"model.dropout=interval({DROPOUT[0]},{DROPOUT[1]})",
)
DATA = ("data=digits", "head=categorical")
BATCH, HIDDEN = 128, 32
RUN = (
    "baseline=none",
    "optimizer=adamw",
    "scheduler=none",
    "average=none",
    f"batch.size={BATCH}",
    f"model.hidden=[{HIDDEN}]",
)
ALONE = ("hydra.launcher.jobs=1", "report=false", "early_stopping.patience=null")
SEARCHES = {
    "random": ("search.sampler=random", "search.pruner=none"),
    "TPE": ("search.pruner=none",),
    "TPE, halving": (),
    "TPE, halving, groups of 16": ("search.population=16",),
    "random, halving, one group": ("search.sampler=random", "search.population=128"),
}


class Done(NamedTuple):
    """What a command has cost, and found.

    Attributes:
        cpu: seconds of all its processes.
        wall: seconds on the clock.
        reached: for each result its share of the clock time, its NLL on validation rows and on test rows.
    """

    cpu: float
    wall: float
    reached: list[tuple[float, float, float]]

    @property
    def best(self) -> tuple[float, float, float]:
        """The result with the least NLL on validation rows."""
        return min(self.reached, key=lambda one: one[1])

    def least(self, cpu: float) -> float:
        """The least NLL on validation rows that was reached within so many seconds; infinite without a result."""
        return min((nll for share, nll, _ in self.reached if share * self.cpu <= cpu), default=float("inf"))

    def seconds(self, nll: float) -> float:
        """CPU seconds until an NLL was reached; infinite where it was not."""
        return min((share * self.cpu for share, value, _ in self.reached if value <= nll), default=float("inf"))


def command(*settings: str) -> list[str]:
    """The command line of a training."""
    return [sys.executable, "-m", "mlefw.cli", "train", *DATA, *RUN, *settings]


def timed(commands: Sequence[list[str]], folder: Path) -> Done:
    """Run commands at once, which write below a folder; what they have found in all."""
    before, clock, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        running = [subprocess.Popen(one, stdout=log, stderr=log, env=environment) for one in commands]
        codes = [one.wait() for one in running]
    if any(codes):
        raise SystemExit((folder / "log.txt").read_text())
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    reached = []
    for file in folder.rglob("summary.json"):
        metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
        nll = [metrics[split]["nll_nats"] for split in ("validation", "test")]
        reached.append(((file.stat().st_mtime - began) / wall, *nll))
    return Done(cpu, wall, reached)  # type: ignore[arg-type]


def search(settings: Sequence[str], trials: int, epochs: int, processes: int = 1) -> Done:
    """Run a search in a directory of its own, in one process or several."""
    with tempfile.TemporaryDirectory() as place:
        one = command("-m", "hydra/sweeper=search", f"search.trials={trials}", f"trainer.max_epochs={epochs}")
        return timed([[*one, *ALONE, *settings, *SPACE, f"run_dir={place}/s"]] * processes, Path(place))


def grid(trials: int, epochs: int) -> Done:
    """Run a grid of about as many jobs, without populations: four values of each setting, or fewer."""
    sides = [max(1, round(trials ** (1 / 3)))] * 3 if trials > 2 else [2, 1, 1]
    ends = [(LR, True), (DECAY, True), (DROPOUT, False)]
    values = [_spaced(*one, num=side) for one, side in zip(ends, sides, strict=True)]
    names = ("optimizer.lr", "optimizer.weight_decay", "model.dropout")
    swept = [f"{name}={','.join(map(str, some))}" for name, some in zip(names, values, strict=True)]
    with tempfile.TemporaryDirectory() as place:
        more = (f"trainer.max_epochs={epochs}", "hydra.launcher.population=false", f"run_dir={place}/s")
        return timed([command("-m", *ALONE, *swept, *more)], Path(place))


def _spaced(ends: tuple[float, float], is_log: bool, num: int) -> list[float]:
    """Middles of intervals of equal length between two ends."""
    shares = [(k + 0.5) / num for k in range(num)]
    low, high = ends
    return [float(f"{low * (high / low) ** s if is_log else low + (high - low) * s:.4g}") for s in shares]


def lone(epochs: int) -> Done:
    """Run a single training."""
    with tempfile.TemporaryDirectory() as place:
        more = ("report=false", "plots=false", "early_stopping.patience=null", f"trainer.max_epochs={epochs}")
        return timed([command(*more, f"run_dir={place}/r")], Path(place))


def plain(trials: int, epochs: int) -> Done:
    """Run Optuna's plain loop around Lightning, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        more = ["--trials", str(trials), "--epochs", str(epochs), "--plain", place]
        return timed([[sys.executable, __file__, *more]], Path(place))


def optimize(trials: int, epochs: int, folder: Path) -> None:
    """Optuna's plain loop; the results of each trial go into a file of its own."""
    import logging
    import warnings

    import lightning
    import optuna
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, TensorDataset

    from mlefw.configuration.read import read_settings, settings_of
    from mlefw.run.prepare import prepare

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = settings_of(read_settings("train", [*DATA, "baseline=none", f"run_dir={folder}/unused"], (), ()))
    rows = prepare(config, None).data.splits
    mean, scale = rows["train"].x.mean(0), rows["train"].x.std(0).clamp(min=1e-6)
    parts = {name: TensorDataset(((one.x - mean) / scale).float(), one.y.long()) for name, one in rows.items()}

    class Network(lightning.LightningModule):
        """A plain module, as the documentation of Lightning writes it."""

        def __init__(self, lr: float, decay: float, dropout: float) -> None:
            super().__init__()
            self.lr, self.decay, self.best = lr, decay, (float("inf"), float("inf"))
            num_features = len(mean)
            self.layers = nn.Sequential(
                nn.Linear(num_features, HIDDEN), nn.SiLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, 10)
            )

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
            self.log("train_nll", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_nll", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

        def on_validation_epoch_end(self) -> None:
            if not self.trainer.sanity_checking:
                value = float(self.trainer.callback_metrics["val_nll"])
                self.best = min(self.best, (value, self._test()))

        def _test(self) -> float:
            x, y = parts["test"].tensors
            return float(nn.functional.cross_entropy(self.layers(x), y))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.decay)

    def objective(trial: Any) -> float:
        lightning.seed_everything(trial.number, verbose=False)
        network = Network(
            trial.suggest_float("lr", *LR, log=True),
            trial.suggest_float("decay", *DECAY, log=True),
            trial.suggest_float("dropout", *DROPOUT),
        )
        place = folder / str(trial.number)
        trainer = lightning.Trainer(
            max_epochs=epochs, default_root_dir=place, enable_progress_bar=False, enable_model_summary=False
        )
        train = DataLoader(parts["train"], batch_size=BATCH, shuffle=True)
        trainer.fit(network, train, DataLoader(parts["validation"], batch_size=len(parts["validation"])))
        validation, test = network.best
        metrics = {"validation": {"nll_nats": validation}, "test": {"nll_nats": test}}
        place.mkdir(exist_ok=True)
        (place / "summary.json").write_text(json.dumps({"metrics": metrics}))
        return validation

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--quick", action="store_true", help="few short trials, to see that it runs")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain is not None:
        optimize(given.trials, given.epochs, given.plain)
        return
    trials, epochs = (4, 3) if given.quick else (given.trials, given.epochs)
    found = {"grid": grid(trials, epochs)}
    chosen = {name: SEARCHES[name] for name in (["random", [*SEARCHES][-1]] if given.quick else SEARCHES)}
    found |= {name: search(settings, trials, epochs) for name, settings in chosen.items()}
    found["Optuna's loop, Lightning"] = plain(trials, epochs)
    out = Console(width=140)
    out.print(what_is_found(found, trials, epochs))
    out.print(what_a_trial_costs(found, trials, epochs))
    out.print(two_processes(min(trials, 16), epochs))


def what_is_found(found: dict[str, Done], trials: int, epochs: int) -> Table:
    """The first table."""
    table = Table(title=f"{trials} trials of {epochs} epochs: NLL in nats per row on validation rows")
    base = found["grid"]
    goal = base.best[1]
    for name in (
        "",
        "CPU, s",
        "v grid",
        "best NLL",
        "its test NLL",
        "after 1/4 of the grid's CPU",
        "CPU to grid's best",
    ):
        table.add_column(name, justify="right" if name else "left")
    for name, done in found.items():
        _, best, test = done.best
        nlls = (best, test, done.least(base.cpu / 4))
        until = done.seconds(goal)
        cells = [f"{done.cpu:.0f}", f"{done.cpu / base.cpu:.2f}", *(f"{nll:.4f}" for nll in nlls)]
        table.add_row(name, *cells, f"{until / base.cpu:.2f} of its" if until < float("inf") else "not reached")
    return table


def what_a_trial_costs(found: dict[str, Done], trials: int, epochs: int) -> Table:
    """The second table."""
    few = {"grid": grid(2, epochs), "random": search(SEARCHES["random"], 2, epochs)}
    together = ("search.sampler=random", "search.pruner=none", f"search.population={trials}")
    few |= {"random, one group": search(together, 2, epochs), "Optuna's loop, Lightning": plain(2, epochs)}
    many = {**found, "random, one group": search(together, trials, epochs)}
    costs = {}
    for name, start in few.items():
        count = len(many[name].reached)
        costs[name] = (many[name].cpu - start.cpu) / max(1, count - 2), start.cpu
    table = Table(title=f"A trial of {epochs} epochs, CPU")
    for name in ("", "a trial, ms", "v a job of a grid", "two of them and the start, s"):
        table.add_column(name, justify="right" if name else "left")
    for name, (cost, whole) in costs.items():
        table.add_row(name, f"{1e3 * cost:.0f}", f"{cost / costs['grid'][0]:.2f}", f"{whole:.1f}")
    table.add_row("one run, its start included", f"{1e3 * lone(epochs).cpu:.0f}", "", "")
    return table


def two_processes(trials: int, epochs: int) -> Table:
    """The third table."""
    one, two = (search(SEARCHES["random"], trials, epochs, count) for count in (1, 2))
    table = Table(title=f"{trials} trials on one journal, {os.cpu_count()} cores")
    for name in ("processes", "CPU, s", "v one", "clock, s", "v one", "trials"):
        table.add_column(name, justify="right")
    for count, done in ((1, one), (2, two)):
        ratios = f"{done.cpu / one.cpu:.2f}", f"{done.wall / one.wall:.2f}"
        table.add_row(str(count), f"{done.cpu:.1f}", ratios[0], f"{done.wall:.1f}", ratios[1], str(len(done.reached)))
    return table


if __name__ == "__main__":
    main()
