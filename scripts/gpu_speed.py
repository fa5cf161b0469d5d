"""The speed table of scripts/gpu: a bare loop, mlefw, mlefw compiled, and Lightning's defaults, in rows per second.

The network is 16-64-64-2 (SiLU) with a heteroscedastic Gaussian likelihood and Adam. The clock is that of the wall, and
the device is waited for. Nobody's first epoch counts: kernels are chosen and compiled in it.
"""

import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUM_EPOCHS = 5

Train = Callable[..., dict[str, Any]]


def simulate(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal features (num_rows, 16); a target whose location and scale both bend."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_rows, 16))
    loc, log_scale = np.sin(x[:, 0]) + x[:, 1] * x[:, 2], 0.4 * x[:, 3] - 0.5
    return x, loc + np.exp(log_scale) * random.normal(size=num_rows)


def network() -> nn.Sequential:
    """The network of all variants."""
    return nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))


def nll(raw: Tensor, y: Tensor) -> Tensor:
    """Mean Gaussian NLL without its constant."""
    loc, log_scale = raw.unbind(-1)
    return (0.5 * ((y - loc) * torch.exp(-log_scale)).square() + log_scale).mean()


def now(device: str) -> float:
    """Seconds, once the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bare(device: str, x: Tensor, y: Tensor, size: int) -> float:
    """The loop that anyone would write, with the rows on the device."""
    model, x, y = network().to(device), x.to(device), y.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    times = [now(device)]
    for _ in range(NUM_EPOCHS):
        order = torch.randperm(len(x), device=device)
        shuffled, target = x[order], y[order]
        for start in range(0, len(x), size):
            optimizer.zero_grad()
            nll(model(shuffled[start : start + size]), target[start : start + size]).backward()
            optimizer.step()
        times.append(now(device))
    return len(x) * (NUM_EPOCHS - 1) / (times[-1] - times[1])


class Peer(lightning.LightningModule):
    """What a tutorial shows."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.times = network(), list[float]()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss, logged."""
        loss = nll(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Note the time."""
        self.times.append(now(self.device.type))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def peer(device: str, x: Tensor, y: Tensor, size: int, folder: Path) -> float:
    """Lightning's defaults."""
    module = Peer()
    trainer = lightning.Trainer(
        max_epochs=NUM_EPOCHS, accelerator=device, devices=1, default_root_dir=folder, enable_model_summary=False
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), size, shuffle=True))
    return len(x) * (NUM_EPOCHS - 2) / (module.times[-1] - module.times[1])


def ours(train: Train, name: str, file: Path, size: int, *more: str) -> float:
    """The median over epochs of what a run notes in `metrics.csv`: its steps alone, without evaluation."""
    rows = ("data=parquet", f"data.path={file}", "data.target=y", "data.test_fraction=0", "data.validation_fraction=0")
    model = ("head=heteroscedastic", "model.hidden=[64,64]", f"batch.size={size}", f"trainer.max_epochs={NUM_EPOCHS}")
    train(name, *rows, *model, "baseline=none", "trainer.check_val_every_n_epoch=1", *more)
    with (file.parent / name / "metrics.csv").open(encoding="utf-8", newline="") as text:
        found = [float(row["rows_per_s"]) for row in csv.DictReader(text) if row.get("rows_per_s")]
    return statistics.median(found[1:])


def measure(device: str, num_rows: int, size: int, folder: Path, train: Train) -> dict[str, float]:
    """Rows per second of each variant, for batches of `size`."""
    x, y = simulate(num_rows)
    file = folder / f"speed_{size}.parquet"
    parquet.write_table(pa.table({**{f"x{k}": x[:, k] for k in range(16)}, "y": y}), file)
    inputs = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    return {
        "bare": bare(device, *inputs, size),
        "mlefw": ours(train, f"plain_{size}", file, size),
        "mlefw compiled": ours(train, f"compiled_{size}", file, size, "compile=true"),
        "Lightning": peer(device, *inputs, size, folder),
    }
