"""A whole fit of the same task by mlefw and its peers: time beside the bare loop, test NLL, peak memory.

    python scripts/bench/peers.py [--rounds N] [--only NAME …] [--python peers/bin/python]

The task: 8,000 training rows of 10 normal features, 2,000 to watch and 10,000 to test; location and scale of a
Gaussian target both bend. Networks are 10-64-64-2 with ReLU, Adam at 1e-3, batches of 128, 30 epochs. The time is the
process's CPU time on one thread for what a person calls once the rows are in arrays: a loop, `Trainer.fit`, `fit`;
imports are left out. That of mlefw holds the exact estimate, every metric of training and watched rows after each
epoch, logs, checkpoints and the summary, but no picture; it starts at the null model and keeps the epoch that is best
on the watched rows. Lightning and torch-uncertainty have their trainers' defaults, the trees their own: NGBoost 500
and LightGBMLSS 200 rounds, stopped early. Each fit is a process of its own, the variants take turns, and a ratio is the
median over the rounds. A peer that is not installed is left out, and why is said.

The peers' own pins of torch, numpy and pandas are older: without --no-deps pip replaces those of mlefw, or refuses.
So they go into an environment beside that of mlefw, which sees its packages, and is named by --python:

    python -m venv peers
    python -c "import torch; print(torch.__path__[0][:-6])" > peers/lib/python3.11/site-packages/mlefw.pth
    peers/bin/pip install --no-deps ngboost==0.5.11 lightgbm==4.7.0 lightgbmlss==0.6.1 torch-uncertainty==0.13.0
    peers/bin/pip install --no-deps torchvision==0.28.0 timm seaborn einops huggingface_hub httpx2 pyro-ppl pyro-api
    peers/bin/pip install --no-deps opt-einsum optuna alembic colorlog sqlalchemy plotly narwhals shap slicer numba
    peers/bin/pip install --no-deps llvmlite cloudpickle tqdm pandas
"""

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from process import FailedError, run

NUM_TRAIN, NUM_WATCHED, NUM_TEST = 8_000, 2_000, 10_000
EPOCHS, BATCH, LR = 30, 128, 1e-3


class Part(NamedTuple):
    """Features and target, float64."""

    x: Any
    y: Any


class Task(NamedTuple):
    """The rows of the three parts."""

    train: Part
    watched: Part
    test: Part


Fit = Callable[[], Callable[[Any], tuple[Any, Any]]]
"""What is timed: it returns what gives location and scale of the rows of features."""


def simulate() -> tuple[Task, float]:
    """The task, and the NLL of the truth on its test rows."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.normal(size=(NUM_TRAIN + NUM_WATCHED + NUM_TEST, 10))
    loc, scale = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], np.exp(0.5 * x[:, 3] - 1.0)
    y = loc + scale * random.normal(size=len(x))
    edges = [0, NUM_TRAIN, NUM_TRAIN + NUM_WATCHED, len(x)]
    parts = [Part(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
    return Task(*parts), nll(loc[edges[2] :], scale[edges[2] :], y[edges[2] :])


def nll(loc: Any, scale: Any, y: Any) -> float:
    """The mean Gaussian NLL in nats, constant included."""
    import numpy as np

    return float(np.mean(0.5 * ((y - loc) / scale) ** 2 + np.log(scale)) + 0.5 * math.log(2 * math.pi))


def network() -> Any:
    """The one of the bare loop and of Lightning."""
    from torch import nn

    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def loss(raw: Any, y: Any) -> Any:
    """Mean Gaussian NLL without its constant."""
    import torch

    loc, log_scale = raw.unbind(-1)
    return (0.5 * ((y - loc) * torch.exp(-log_scale)).square() + log_scale).mean()


def predicted(model: Any) -> Callable[[Any], tuple[Any, Any]]:
    """Location and scale by a network of these."""
    import torch

    def of(x: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            loc, log_scale = model(torch.as_tensor(x).float()).double().unbind(-1)
        return loc.numpy(), log_scale.exp().numpy()

    return of


def tensors(part: Part) -> tuple[Any, Any]:
    """In 32 bit."""
    import torch

    return torch.as_tensor(part.x).float(), torch.as_tensor(part.y).float()


def bare(task: Task, folder: Path) -> Fit:
    """The loop that anyone would write: no logs, no validation."""
    import torch

    x, y = tensors(task.train)

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        for _ in range(EPOCHS):
            order = torch.randperm(len(x))
            for start in range(0, len(x), BATCH):
                rows = order[start : start + BATCH]
                optimizer.zero_grad()
                loss(model(x[rows]), y[rows]).backward()
                optimizer.step()
        return predicted(model)

    return fit


def mlefw(task: Task, folder: Path, *settings: str) -> Fit:
    """`fit` with the settings of the task."""
    from mlefw.fit import fit as train

    given = [
        *("head=heteroscedastic", "model.activation=relu", "scheduler=none", "data.test_fraction=0"),
        *(f"batch.size={BATCH}", f"optimizer.lr={LR}", f"trainer.max_epochs={EPOCHS}", "early_stopping.patience=null"),
        *("plots=false", "report=false", *settings),
    ]

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        model = train(task.train.x, task.train.y, *given, validation=tuple(task.watched), run_dir=folder / "run")

        def of(x: Any) -> tuple[Any, Any]:
            distribution = model.distribution(x)
            return distribution.mean.detach().numpy(), distribution.stddev.detach().numpy()

        return of

    return fit


def loaders(task: Task) -> tuple[Any, Any]:
    """Of training and watched rows, as tutorials have them."""
    from torch.utils.data import DataLoader, TensorDataset

    train, watched = (TensorDataset(*tensors(part)) for part in (task.train, task.watched))
    return DataLoader(train, BATCH, shuffle=True), DataLoader(watched, BATCH)


def lightning(task: Task, folder: Path) -> Fit:
    """Its defaults: TensorBoard, checkpoints, progress bar, a logged loss."""
    import torch
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: list[Any], index: int) -> Any:
            value = loss(self.model(batch[0]), batch[1])
            self.log("train_loss", value, prog_bar=True)
            return value

        def validation_step(self, batch: list[Any], index: int) -> None:
            self.log("val_loss", loss(self.model(batch[0]), batch[1]), prog_bar=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=LR)

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        module = Module()
        Trainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder).fit(module, *loaders(task))
        return predicted(module.model)

    return fit


def torch_uncertainty(task: Task, folder: Path) -> Fit:
    """Its regression routine with a Gaussian layer; TUTrainer with its defaults."""
    import torch

    if torch.version.cuda is None and "+" not in version("torchvision"):
        # It imports torchvision, whose wheel on PyPI registers these two for CUDA builds of torch alone.
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float bound) -> Tensor")
    from torch import nn
    from torch_uncertainty import TUTrainer
    from torch_uncertainty.layers.distributions import NormalLinear
    from torch_uncertainty.losses import DistributionNLLLoss
    from torch_uncertainty.routines import RegressionRoutine

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        hidden = [nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
        model = nn.Sequential(*hidden, NormalLinear(nn.Linear, event_dim=1, in_features=64))
        optimizer = torch.optim.Adam(model.parameters(), lr=LR)
        routine = RegressionRoutine(
            model, output_dim=1, loss=DistributionNLLLoss(), dist_family="normal", optim_recipe=optimizer
        )
        TUTrainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder).fit(routine, *loaders(task))
        model.eval()

        def of(x: Any) -> tuple[Any, Any]:
            with torch.no_grad():
                found = model(torch.as_tensor(x).float())
            return found["loc"].squeeze(-1).double().numpy(), found["scale"].squeeze(-1).double().numpy()

        return of

    return fit


def ngboost(task: Task, folder: Path) -> Fit:
    """Its defaults, stopped early by the watched rows."""
    from ngboost import NGBRegressor

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        model = NGBRegressor(n_estimators=500, early_stopping_rounds=20, verbose=False, random_state=0)
        model.fit(task.train.x, task.train.y, X_val=task.watched.x, Y_val=task.watched.y)

        def of(x: Any) -> tuple[Any, Any]:
            found = model.pred_dist(x).params
            return found["loc"], found["scale"]

        return of

    return fit


def lightgbmlss(task: Task, folder: Path) -> Fit:
    """Its Gaussian in at most 200 rounds, stopped early by the watched rows, on one thread."""
    import lightgbm
    import pandas as pd
    from lightgbmlss.distributions.Gaussian import Gaussian
    from lightgbmlss.model import LightGBMLSS

    def fit() -> Callable[[Any], tuple[Any, Any]]:
        model = LightGBMLSS(Gaussian())
        train, watched = (lightgbm.Dataset(part.x, label=part.y) for part in (task.train, task.watched))
        stop = lightgbm.early_stopping(20, verbose=False)
        model.train({"num_threads": 1, "verbose": -1}, train, 200, valid_sets=[watched], callbacks=[stop])

        def of(x: Any) -> tuple[Any, Any]:
            found = model.predict(pd.DataFrame(x), pred_type="parameters")
            return found["loc"].to_numpy(), found["scale"].to_numpy()

        return of

    return fit


FOREIGN = ("torch-uncertainty", "NGBoost", "LightGBMLSS")
"""Those that run in the other environment."""

VARIANTS: dict[str, Callable[[Task, Path], Fit]] = {
    "bare loop": bare,
    "mlefw": mlefw,
    "Lightning": lightning,
    "torch-uncertainty": torch_uncertainty,
    "NGBoost": ngboost,
    "LightGBMLSS": lightgbmlss,
}


def one(name: str, folder: Path) -> dict[str, float]:
    """Fit one of them here."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # The first optimiser of a process imports the compiler of torch.
    torch.optim.Adam([torch.zeros(1)])
    task, truth = simulate()
    fit = VARIANTS[name](task, folder)
    clock, wall = time.process_time(), time.perf_counter()
    parameters = fit()
    cpu, wall = time.process_time() - clock, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "nll": nll(*parameters(task.test.x), task.test.y), "truth": truth}


def measure(names: list[str], rounds: int, python: str) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """What each fit took in each round; and why others were left out."""
    found: dict[str, list[dict[str, float]]] = {}
    left_out: dict[str, str] = {}
    settings = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    for _ in range(rounds):
        for name in names:
            if name in left_out:
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = [python if name in FOREIGN else sys.executable, str(Path(__file__).resolve()), "--one", name]
                try:
                    cost, text = run(command, Path(folder), settings)
                except FailedError as error:
                    left_out[name] = str(error)
                    continue
            found.setdefault(name, []).append({**json.loads(text.splitlines()[-1]), "memory": cost.memory})
    return found, left_out


def main() -> None:
    """Print the table; or, with --one, the figures of one fit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--python", default=sys.executable, help="that of the peers' environment")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, Path.cwd())))
        return
    from rich.console import Console
    from rich.table import Table

    found, left_out = measure(
        list(dict.fromkeys(["bare loop", *given.only])), given.rounds, str(Path(given.python).absolute())
    )
    table = Table("whole fit", "CPU, s", "v bare loop", "v mlefw", "test NLL, nats", "peak memory, MiB")
    for name, rounds in found.items():
        cells = [f"{statistics.median(one['cpu'] for one in rounds):.2f}"]
        for base in ("bare loop", "mlefw"):
            pairs = zip(rounds, found.get(base, []), strict=False)
            ratios = [mine["cpu"] / other["cpu"] for mine, other in pairs]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        table.add_row(name, *cells, f"{rounds[0]['nll']:.3f}", f"{max(one['memory'] for one in rounds):.0f}")
    out = Console(width=120)
    out.print(table)
    out.print(f"the truth has a test NLL of {found['bare loop'][0]['truth']:.3f}")
    for name, why in left_out.items():
        out.print(f"left out: {name} ({why})", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
