"""Checks and measures a machine with a CUDA device, and writes what it found as JSON.

    scripts/gpu [--device cpu] [--output gpu.json] [--seconds 480] [--rows 50000] [--only PART …]

Parts, each of which stands alone:

- `heads`: NLL and gradient of every head on the device and on the CPU, in float64;
- `resume`: runs that change from the device to the CPU and from the CPU to the device half-way, against one that stays;
- `mixed`: training in bfloat16 against 32 bit;
- `ddp`: one process of a group (NCCL on a GPU) against a run without one;
- `streaming`: rows in files against rows in memory;
- `tensors`: images and a text on the device and on the CPU;
- `ensembles`: an ensemble of three networks on the device and on the CPU;
- `populations`: the jobs of a sweep, which are asked to train together, against each by itself;
- `speed`: rows per second of a bare loop, of mlefw, of mlefw compiled, and of Lightning's defaults.

`--device cpu` checks the CPU against itself: what the script does is tried, and nothing is said of a GPU. Exit codes: 0
all passed, 1 some did not or were left out for lack of time, 2 there is no such device.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gpu_speed
import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor
from torch.distributions import Beta, Distribution

from mlefw.cli import run
from mlefw.configuration.read import read_settings
from mlefw.configuration.yaml_folder import members
from mlefw.distribution import quantile
from mlefw.distribution.censored import Censored
from mlefw.distribution.joint import Joint
from mlefw.distribution.trials import GivenTrials
from mlefw.head.base import Head
from mlefw.run import build
from mlefw.schema.target import Target

SMALL = ("model.hidden=[32]", "report=false", "plots=false", "logger=none", "early_stopping.patience=null")
SEVERAL: dict[str, tuple[str, ...]] = {
    "multitask": ("head.tasks.a=gaussian", "head.tasks.b=poisson"),
    "multivariate_gaussian": (),
    "censored": (),
}
"""Heads of two target columns, with the settings that they need."""


@dataclass(frozen=True)
class Machine:
    """The device under test, a folder for runs, and about how many rows are trained on."""

    device: str
    folder: Path
    num_rows: int

    def train(self, name: str, *settings: str, device: str = "") -> dict[str, Any]:
        """The summary of a training run, named `name`, or of one that goes on if `settings` begin with `resume=`.

        Raises:
            RuntimeError: it failed.
        """
        given = {setting.partition("=")[0] for setting in settings}
        # The width is that of the default model.
        given |= {"model.hidden"} if "model" in given else set()
        small = [setting for setting in SMALL if setting.partition("=")[0] not in given]
        place = [] if "resume" in given else [f"run_dir={self.folder / name}", *small]
        arguments = [f"trainer.accelerator={device or self.device}", *place, *settings]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = run(["train", *arguments])
        if code:
            raise RuntimeError(f"mlefw train {' '.join(arguments)}: exit code {code}")
        return self.summary(name)

    def summary(self, name: str) -> dict[str, Any]:
        """The summary of a run that is there."""
        content: dict[str, Any] = json.loads((self.folder / name / "summary.json").read_text(encoding="utf-8"))
        return content


def nll_of(summary: dict[str, Any]) -> float:
    """Of the training rows, in nats."""
    return float(summary["metrics"]["train"]["nll_nats"])


def compared(expected: float, tolerance: float, **found: float) -> dict[str, Any]:
    """Figures beside the one that is expected, and whether all are within a tolerance of it."""
    passed = all(abs(value - expected) <= tolerance for value in found.values())
    return {"passed": passed, "expected": expected, "tolerance": tolerance, **found}


def head_of(name: str) -> Head:
    """A head by its name, of four classes or two targets where it is for such."""
    config = read_settings("train", [f"head={name}", *SEVERAL.get(name, ())], [], [])
    kind = build.head_kind(config["head"]).target
    labels = {"binary": ("0", "1"), "labels": ("0", "1", "2", "3"), "ordered": ("0", "1", "2", "3")}.get(kind)
    targets = [Target("a", kind, labels), Target("b", kind, labels)]
    return build.head_of(config["head"], targets if name in SEVERAL else targets[:1])


def drawn(distribution: Distribution, generator: torch.Generator) -> Tensor:
    """A target for each row; of a censored one a third of the rows is known by one bound alone."""
    if isinstance(distribution, Joint):
        return torch.stack([drawn(one, generator).double() for one in distribution.marginals], -1)
    if isinstance(distribution, Censored):
        bounds = torch.stack(2 * [drawn(distribution.latent, generator)], -1)
        bounds[::6, 0], bounds[1::6, 1] = -torch.inf, torch.nan
        return bounds
    if isinstance(distribution, GivenTrials):
        trials = torch.full(distribution.batch_shape, 12.0, dtype=torch.float64, device=generator.device)
        return torch.stack([quantile.sample(distribution.given(trials), generator), trials], -1)
    y = quantile.sample(distribution, generator)
    # A share may round to one, where there is no density.
    return y.clamp(1e-9, 1 - 1e-9) if isinstance(distribution, Beta) else y


def nll_and_gradient(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The NLL of each row and its gradient in eta, on the CPU."""
    eta = eta.detach().requires_grad_()
    nll = head.nll(eta, y)
    (gradient,) = torch.autograd.grad(nll.sum(), eta)
    return nll.detach().cpu(), gradient.cpu()


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative where values are above one; infinite where one is not finite."""
    if not bool(one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    return float(((one - other).abs() / other.abs().clamp(min=1)).max())


def heads(machine: Machine) -> dict[str, Any]:
    """The largest difference of each head between the device and the CPU."""
    found = {}
    for name in members("head"):
        generator = torch.Generator().manual_seed(0)
        head = head_of(name).double()
        eta = torch.randn(512, head.eta_dim, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            y = drawn(head(eta), generator)
        expected = nll_and_gradient(head, eta, y)
        there = nll_and_gradient(head.to(machine.device), eta.to(machine.device), y.to(machine.device))
        nll, gradient = (difference(*pair) for pair in zip(there, expected, strict=True))
        found[name] = {"nll": nll, "gradient": gradient}
    worst = max(value for pair in found.values() for value in pair.values())
    return {"passed": worst < 1e-9, "tolerance": 1e-9, "worst": worst, "heads": found}


def resume(machine: Machine) -> dict[str, Any]:
    """The NLL of runs that change the device half-way, in 64 bit, and of one that does not."""
    wide, far = ("trainer.precision=64-true", "scheduler=none"), "trainer.max_epochs=6"
    whole = machine.train("whole", *wide, far)
    found = {}
    for name, first, then in (("to_cpu", machine.device, "cpu"), ("from_cpu", "cpu", machine.device)):
        machine.train(name, *wide, "trainer.max_epochs=3", device=first)
        found[name] = nll_of(machine.train(name, f"resume={machine.folder / name}", far, device=then))
    return compared(nll_of(whole), 1e-6, **found)


def mixed(machine: Machine) -> dict[str, Any]:
    """The NLL of a short training in bfloat16; the likelihood stays in 64 bit."""
    few = ("trainer.max_epochs=8",)
    expected = machine.train("single", *few)
    return compared(nll_of(expected), 0.02, bf16=nll_of(machine.train("bf16", *few, "trainer.precision=bf16-mixed")))


def ddp(machine: Machine) -> dict[str, Any]:
    """The NLL of one process of a group, which is another program: a process has one group in its life."""
    few = ("trainer.precision=64-true", "trainer.max_epochs=4")
    expected = machine.train("alone", *few)
    settings = [*few, *SMALL, f"trainer.accelerator={machine.device}", f"run_dir={machine.folder / 'group'}"]
    group = ("trainer.strategy=ddp", "trainer.devices=1")
    subprocess.run([sys.executable, "-m", "mlefw.cli", "train", *settings, *group], check=True)
    return compared(nll_of(expected), 1e-8, group=nll_of(machine.summary("group")))


def streaming(machine: Machine) -> dict[str, Any]:
    """The NLL of full-batch training on rows in files and in memory."""
    x, y = gpu_speed.simulate(machine.num_rows)
    file = machine.folder / "rows.parquet"
    parquet.write_table(pa.table({**{f"x{k}": x[:, k] for k in range(x.shape[1])}, "y": y}), file)
    rows = ("data=parquet", f"data.path={file}", "data.target=y", "batch=full", "batch.max_rows=10000")
    more = ("trainer.precision=64-true", "trainer.max_epochs=4")
    found = {name: nll_of(machine.train(name, *rows, *more, f"data.stream={name}")) for name in ("true", "false")}
    return compared(found["false"], 1e-8, files=found["true"])


def tensors(machine: Machine) -> dict[str, Any]:
    """The largest difference in NLL of images, and of a text, between the device and the CPU, in 64 bit."""
    text = machine.folder / "text.txt"
    random = np.random.default_rng(0)
    text.write_text("".join("abcd"[k] for k in np.cumsum(random.integers(0, 3, 6000)) % 4), encoding="utf-8")
    kinds = {
        "images": ("data=digits_images", "head=categorical", "model=cnn"),
        "text": ("data=text", f"data.path={text}", "model=transformer", "model.width=16", "data.length=16"),
    }
    few, found = ("trainer.precision=64-true", "trainer.max_epochs=2"), {}
    for kind, settings in kinds.items():
        expected = nll_of(machine.train(f"{kind}_cpu", *settings, *few, device="cpu"))
        found[kind] = abs(nll_of(machine.train(f"{kind}_there", *settings, *few)) - expected)
    # Random shifts differ between devices: only that they can be trained on is checked.
    machine.train("shifted", *kinds["images"], "augment=shift", "trainer.max_epochs=2", "trainer.precision=bf16-mixed")
    return {"passed": max(found.values()) < 1e-6, "tolerance": 1e-6, **found}


def ensembles(machine: Machine) -> dict[str, Any]:
    """The NLL of an ensemble, and of each of its members, on the device and on the CPU, in 64 bit."""
    few = ("ensemble=seeds", "ensemble.members=3", "trainer.precision=64-true", "trainer.max_epochs=3")
    expected = nll_of(machine.train("ensemble_cpu", *few, device="cpu"))
    return compared(expected, 1e-6, there=nll_of(machine.train("ensemble_there", *few)))


def populations(machine: Machine) -> dict[str, Any]:
    """The largest difference in NLL between the jobs of a sweep, and the same runs one by one.

    A population trains on the CPU; where there is a device, the jobs of a sweep train there, one after the other.
    """
    settings = (*SMALL, f"trainer.accelerator={machine.device}", "trainer.max_epochs=3")
    folder = machine.folder / "sweep"
    arguments = ["train", "-m", "seed=0,1,2", *settings, f"run_dir={folder}", "hydra.launcher.population=true"]
    if code := run(arguments):
        raise RuntimeError(f"mlefw {' '.join(arguments)}: exit code {code}")
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*/summary.json")]
    found = {}
    for seed in range(3):
        (job,) = (job for job in jobs if job["seed"] == seed)
        alone = machine.train(f"alone_{seed}", f"seed={seed}", "trainer.max_epochs=3")
        found[f"seed {seed}"] = abs(nll_of(job) - nll_of(alone))
    return {"passed": max(found.values()) < 1e-4, "tolerance": 1e-4, **found}


def speed(machine: Machine) -> dict[str, Any]:
    """Rows per second by batch size and variant; more is faster."""
    table = {
        f"batch {size}": gpu_speed.measure(machine.device, machine.num_rows, size, machine.folder, machine.train)
        for size in (128, 1024)
    }
    found = [value for row in table.values() for value in row.values()]
    return {"passed": bool(np.isfinite(found).all()), "unit": "rows per second", "table": table}


PARTS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    part.__name__: part for part in (heads, resume, mixed, ddp, streaming, tensors, ensembles, populations, speed)
}


def about(device: str) -> dict[str, Any]:
    """What was measured with what."""
    is_cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_cuda else platform.processor() or platform.machine(),
        "kind": device,
        "cuda": torch.version.cuda if is_cuda else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("mlefw", "torch", "lightning", "numpy")},
    }


def check(machine: Machine, names: list[str], seconds: float) -> dict[str, Any]:
    """What each part found; one that fails costs no other, and none begins after so many seconds."""
    begin, found = time.monotonic(), dict[str, Any]()
    for name in names:
        start = time.monotonic()
        if start - begin > seconds:
            found[name] = {"passed": False, "left_out": "there was no time left"}
            continue
        try:
            found[name] = PARTS[name](machine)
        except Exception as error:  # noqa: BLE001 - the time on a device is short: the other parts are checked, too
            traceback.print_exc()
            found[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        found[name]["seconds"] = round(time.monotonic() - start, 1)
        print(f"{name}: {'passed' if found[name]['passed'] else 'FAILED'} in {found[name]['seconds']} s", flush=True)
    return found


def main() -> int:
    """Check, write, and say in a line how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=360.0, help="after which no other part begins")
    parser.add_argument("--rows", type=int, default=50_000, help="of what is trained for streaming and speed")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("gpu: there is no CUDA device: nothing was checked (--device cpu tries the script)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(chosen.device, Path(name), chosen.rows)
        found = check(machine, chosen.only, chosen.seconds)
    passed = all(part["passed"] for part in found.values())
    content = {"passed": passed, **about(chosen.device), "parts": found}
    chosen.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{'all passed' if passed else 'NOT PASSED'}: {chosen.output}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
