"""How long a command takes to its first step, to its end, and to its messages; beside a bare Lightning script.

    python scripts/bench/startup.py [--rounds N]

Both train the network 10-64-64-2 (SiLU) with a heteroscedastic Gaussian likelihood on 2,000 rows of a CSV file, of
which a fifth is for validation. *Lightning* is a script as people write it: pandas, TensorDataset, DataLoader, a
Trainer with its defaults and one `self.log` a pass. *mlefw* is `mlefw train` with its defaults: the file is read
strictly and checked, the exact estimate is solved for and written, TensorBoard, metrics.csv and checkpoints are on.

The first step has been taken where Lightning calls `on_train_batch_end` for the first time; a callback, the same for
both, ends the process there, so that its cost is that of everything before. Commands take turns, on one thread; the
median over the rounds counts. Of whole commands that of mlefw draws its pictures and writes its report.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from process import Cost, run

MESSAGES = {
    "--help": (["--help"], 0),
    "train --cfg job": (["train", "--cfg", "job"], 0),
    "train haed=poisson": (["train", "haed=poisson"], 2),
    "train head=poison": (["train", "head=poison"], 2),
    "train trainer.max_epocs=3": (["train", "trainer.max_epocs=3"], 2),
    "train optimizer.lr=abc": (["train", "optimizer.lr=abc"], 2),
}
"""Command lines of mlefw that train nothing, with their exit codes."""

RUN = ["train", "head=heteroscedastic", "data=csv", "data.path=rows.csv", "data.target=y", "data.test_fraction=0"]

FIRST_STEP = """
import os

import lightning


class FirstStep(lightning.Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)
"""

LIGHTNING = """
import sys

import lightning
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Network(lightning.LightningModule):
    def __init__(self, num_features):
        super().__init__()
        layers = [nn.Linear(num_features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)]
        self.model = nn.Sequential(*layers)

    def loss(self, batch):
        loc, log_scale = self.model(batch[0]).unbind(-1)
        return (0.5 * ((batch[1] - loc) * torch.exp(-log_scale)).square() + log_scale).mean()

    def training_step(self, batch, index):
        loss = self.loss(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


frame = pd.read_csv("rows.csv").sample(frac=1, random_state=0)
x = torch.tensor(frame.drop(columns="y").to_numpy(), dtype=torch.float32)
y = torch.tensor(frame["y"].to_numpy(), dtype=torch.float32)
num_train = len(x) * 4 // 5
x = (x - x[:num_train].mean(0)) / x[:num_train].std(0)
train, held_out = TensorDataset(x[:num_train], y[:num_train]), TensorDataset(x[num_train:], y[num_train:])
callbacks = []
if "first_step" in sys.argv:
    from first_step import FirstStep

    callbacks = [FirstStep()]
trainer = lightning.Trainer(max_epochs=int(sys.argv[1]), accelerator="cpu", callbacks=callbacks)
trainer.fit(Network(x.shape[1]), DataLoader(train, 32, shuffle=True), DataLoader(held_out, 32))
"""


def write_inputs(folder: Path) -> None:
    """The rows, the script, and the callback of both."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 10))
    y = np.sin(x[:, 0]) + x[:, 1] + np.exp(0.3 * x[:, 2]) * random.normal(size=len(x))
    names = ",".join([*(f"x{k}" for k in range(10)), "y"])
    np.savetxt(folder / "rows.csv", np.column_stack([x, y]), delimiter=",", header=names, comments="", fmt="%.8g")
    (folder / "first_step.py").write_text(FIRST_STEP, encoding="utf-8")
    (folder / "lightning_script.py").write_text(LIGHTNING, encoding="utf-8")


def measure(rounds: int) -> dict[str, list[Cost]]:
    """What each command cost in every round."""
    program = [sys.executable, "-m", "mlefw.cli"]
    first = ["--plugin", "first_step", "+callback.first._target_=first_step.FirstStep"]
    commands = {name: ([*program, *words], code) for name, (words, code) in MESSAGES.items()}
    commands["import torch"] = ([sys.executable, "-c", "import torch"], 0)
    commands["import lightning"] = ([sys.executable, "-c", "import lightning"], 0)
    commands["Lightning, to the first step"] = ([sys.executable, "lightning_script.py", "1", "first_step"], 0)
    commands["mlefw train, to the first step"] = ([*program, *RUN, *first], 0)
    commands["Lightning, 20 epochs"] = ([sys.executable, "lightning_script.py", "20"], 0)
    commands["mlefw train, 20 epochs"] = ([*program, *RUN, "trainer.max_epochs=20"], 0)
    commands["mlefw train data=iris head=categorical"] = ([*program, "train", "data=iris", "head=categorical"], 0)
    root = str(Path(__file__).parents[2])
    settings = {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    found: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, (command, code) in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                write_inputs(Path(folder))
                found[name].append(run(command, Path(folder), settings, code)[0])
    return found


def main() -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    found = measure(parser.parse_args().rounds)
    base = {"first step": "Lightning, to the first step", "20 epochs": "Lightning, 20 epochs"}
    table = Table("command", "clock, s", "CPU, s", "memory, MiB", "clock v Lightning", "CPU v Lightning")
    for name, costs in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*costs, strict=True))
        cells = [f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}"]
        peer = next((peer for what, peer in base.items() if name.startswith("mlefw") and name.endswith(what)), None)
        if peer is not None:
            pairs = list(zip(costs, found[peer], strict=True))
            cells += [f"{statistics.median(ours[k] / theirs[k] for ours, theirs in pairs):.2f}" for k in (0, 1)]
        table.add_row(name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
