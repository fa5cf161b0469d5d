"""How fast an epoch on text and on images is: ratios to a bare loop and to Lightning's defaults, in one run.

    OMP_NUM_THREADS=1 python scripts/bench/tensors.py [--rounds N] [--size F] [--only text images] [mlefw overrides …]

*Text*: 640,000 characters, `model=transformer` as it is, 32 windows of 64 characters a step. *Images*: 6,400 images of
1 x 28 x 28 bytes in ten classes, `model=cnn` as it is, 64 images a step; `--size 0.1` takes a tenth. All variants have
the network of mlefw, in 32 bit, Adam at 3e-3, and the gradient clipped to norm 1. *Bare* is a plain loop over gathered
rows, `Adam(fused=True)`, cross-entropy in 32 bit, and its mean over the held-out tenth after each epoch. *mlefw* is
`mlefw train` without its reading of data and its exact estimates: likelihood in 64 bit, all metrics of validation rows
and of training rows as `trainer.check_val_every_n_epoch` says, TensorBoard, checkpoints. *Lightning* is its defaults:
DataLoader(TensorDataset), `self.log` in training and validation, TensorBoard, checkpoint.

Per step: process CPU time from the start of the second epoch to that of the last, over the steps there. Variants take
turns; a ratio is the median.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import step
import text
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mlefw.configuration.read import read_settings, settings_of
from mlefw.model.cnn import Cnn
from mlefw.model.transformer import Transformer
from mlefw.run import checkpoint, fitting
from mlefw.run.directory import claim
from mlefw.run.prepare import estimate, prepare
from mlefw.score.yardstick import Yardstick
from mlefw.system.trust import trust

EPOCHS, LENGTH = 4, 64
BATCH = {"text": 32, "images": 64}


class Bytes(nn.Module):
    """A network whose inputs come as bytes: tokens, or pixels that are divided by 255."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        tokens = Transformer(text.NUM_SYMBOLS, LENGTH, (LENGTH,), text.NUM_SYMBOLS) if kind == "text" else None
        self.net = tokens or Cnn((1, 28, 28), 10)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy."""
        raw = self.net(x.long() if self.kind == "text" else x.float() / 255)
        return cross_entropy(raw.flatten(0, -2), y.long().flatten())


def simulate(kind: str, folder: Path, size: float) -> tuple[Tensor, Tensor, list[str]]:
    """Inputs and targets (n, …) as bytes, the last tenth held out, and the settings with which mlefw reads them."""
    if kind == "text":
        path = folder / "text.txt"
        text.simulate(path, round(640_000 * size))
        stream = torch.from_numpy(np.fromfile(path, np.uint8) - ord("0"))
        count = (len(stream) - 1) // LENGTH
        x, y = (stream[start : start + count * LENGTH].view(count, LENGTH) for start in (0, 1))
        return x, y, ["data=text", f"data.path={path}", "data.test_fraction=0", f"data.length={LENGTH}"]
    random = np.random.default_rng(0)
    y = random.integers(0, 10, round(6_400 * size))
    x = random.integers(0, 200, (len(y), 1, 28, 28)).astype(np.uint8)
    for k, label in enumerate(y):
        x[k, 0, 2 * label : 2 * label + 4] += 50
    np.savez(folder / "images.npz", x=x, y=y.astype(np.uint8))
    settings = ["data=npz", f"data.path={folder / 'images.npz'}", "model=cnn", "head=categorical"]
    return torch.from_numpy(x), torch.from_numpy(y), [*settings, "data.test_fraction=0", "data.validation_fraction=0.1"]


def bare(kind: str, x: Tensor, y: Tensor) -> float:
    """The loop that anyone would write."""
    model = Bytes(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    count, times, steps = len(x) * 9 // 10, [time.process_time()], 0
    for _ in range(EPOCHS):
        for index in torch.randperm(count).split(BATCH[kind]):
            optimizer.zero_grad()
            model.loss(x[index], y[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
        with torch.no_grad():
            held_out = torch.arange(count, len(x)).split(BATCH[kind])
            sum(float(model.loss(x[index], y[index])) * len(index) for index in held_out)
        times.append(time.process_time())
    return (times[-2] - times[1]) / (steps // EPOCHS * (EPOCHS - 2))


class Peer(lightning.LightningModule):
    """What a tutorial shows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = Bytes(kind)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss, logged."""
        loss = self.model.loss(*batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """The loss, logged."""
        self.log("val_loss", self.model.loss(*batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def peer(kind: str, x: Tensor, y: Tensor, folder: Path) -> float:
    """Lightning's defaults."""
    clock, count = step.Clock(), len(x) * 9 // 10
    train, held_out = (TensorDataset(x[part], y[part]) for part in (slice(0, count), slice(count, None)))
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", gradient_clip_val=1.0, default_root_dir=folder, callbacks=[clock]
    )
    trainer.fit(Peer(kind), DataLoader(train, BATCH[kind], shuffle=True), DataLoader(held_out, BATCH[kind]))
    return per_step(clock)


def ours(kind: str, settings: list[str], folder: Path) -> float:
    """A run of mlefw, from the trainer to the restored best state."""
    every = [f"batch.size={BATCH[kind]}", "trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}"]
    run_dir = claim(folder / f"run_{time.monotonic_ns()}")
    read = read_settings("train", [*settings, *every, "early_stopping.patience=null"], [], [])
    config = settings_of({**read, "run_dir": str(run_dir)})
    prepared = prepare(config, None)
    yardstick = Yardstick(
        estimate(config, prepared), prepared.estimand.objective, prepared.data.splits, prepared.data.units
    )
    trust([step.__name__])
    config = config.replaced(callback={**config.callback, "clock": {"_target_": f"{step.__name__}.Clock"}})
    card = checkpoint.card(config, prepared.data, prepared.estimand.objective.population)
    fitting.fit(config, run_dir, prepared, yardstick, card, None)
    return per_step(step.Clock.latest)


def per_step(clock: step.Clock) -> float:
    """Seconds a step from the second epoch on, without the last, as the bare loop counts them."""
    return (clock.times[-1] - clock.times[1]) / (clock.steps[-1] - clock.steps[1])


def measure(kind: str, rounds: int, size: float, overrides: list[str]) -> dict[str, list[float]]:
    """Seconds a step of every variant in every round."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y, settings = simulate(kind, folder, size)
        calls: dict[str, Callable[[], float]] = {
            "bare": lambda: bare(kind, x, y),
            "mlefw": lambda: ours(kind, [*settings, *overrides], folder),
            "Lightning": lambda: peer(kind, x, y, folder),
        }
        for _ in range(rounds):
            for label, call in calls.items():
                gc.collect()
                with step.silent():
                    found.setdefault(label, []).append(call())
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--only", nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("overrides", nargs="*", help="of mlefw")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shown = Table("an epoch of", "bare, ms a step", "mlefw / bare", "Lightning / bare")
    for kind in given.only:
        found = measure(kind, given.rounds, given.size, given.overrides)
        ratios = [statistics.median(a / b for a, b in zip(one, found["bare"], strict=True)) for one in found.values()]
        shown.add_row(kind, f"{1e3 * statistics.median(found['bare']):.1f}", *(f"{ratio:.2f}" for ratio in ratios[1:]))
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
