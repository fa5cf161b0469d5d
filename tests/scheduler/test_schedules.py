"""Learning rates by optimiser steps: against the formula, in recorded steps, in whole and in interrupted runs."""

import csv
import math
import pkgutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import summary_of
from torch import nn

import mlefw.scheduler
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import UsageError
from mlefw.head.gaussian import GaussianHead
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective
from mlefw.objective.tape import Tape
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized
from mlefw.run import archive
from mlefw.run.trainer import planned_steps
from mlefw.scheduler.base import StepScheduler
from mlefw.scheduler.warmup_cosine import WarmupCosine
from mlefw.training.rates import Rates
from mlefw.training.step import Step
from tests.interrupted import QUIET, assert_same_run, train

SMALL = ("model.hidden=[6]", "batch.size=40", "baseline=none", "seed=3", *QUIET)
"""266 training rows: 7 steps an epoch."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def optimizer(lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=lr, fused=True)


def rates(scheduler: StepScheduler, num_steps: int) -> list[float]:
    """The learning rate that each step is taken with."""
    found = []
    for _ in range(num_steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_every_member_has_a_yaml() -> None:
    modules = {module.name for module in pkgutil.iter_modules(mlefw.scheduler.__path__)}
    yaml = {
        file.stem
        for file in (Path(__file__).parents[2] / "conf" / "scheduler").glob("*.yaml")
        if "_target_: mlefw." in file.read_text(encoding="utf-8")
    }
    assert modules - {"base"} == yaml == {"warmup_cosine"}


@pytest.mark.parametrize(("num_steps", "warmup"), [(1500, 100), (300, 0), (40, 7), (20, 10), (7, 100), (1, 9), (2, 1)])
def test_the_rates_of_warmup_cosine_are_those_of_the_formula(num_steps: int, warmup: int) -> None:
    found = rates(scheduler := WarmupCosine(optimizer(), num_steps, warmup), num_steps)
    rise = min(warmup, num_steps // 2)
    up = 3e-3 * np.arange(1, rise + 1) / max(rise, 1)
    down = 3e-3 * np.cos(np.pi / 2 * np.arange(num_steps - rise) / (num_steps - rise)) ** 2
    np.testing.assert_allclose(found, [*up, *down], rtol=1e-7)
    assert scheduler.optimizer.param_groups[0]["lr"] == 0
    assert max(found) == pytest.approx(3e-3, rel=1e-7)
    assert all(rate == float(np.float32(rate)) for rate in found), "a rate in 32 bit is the same on every device"


def test_the_peak_comes_after_the_warmup_and_rates_fall_from_there_on() -> None:
    found = rates(WarmupCosine(optimizer(), 50, 10), 50)
    assert all(one < other for one, other in pairwise(found[:10]))
    assert all(one > other for one, other in pairwise(found[10:]))


@pytest.mark.parametrize("warmup", [-1, -100])
def test_a_warmup_of_less_than_nothing_is_refused(warmup: int) -> None:
    with pytest.raises(UsageError, match=rf"scheduler\.warmup={warmup}: expected a whole number of steps"):
        WarmupCosine(optimizer(), 10, warmup)


def test_a_state_goes_on_where_it_was() -> None:
    whole = rates(WarmupCosine(optimizer(), 30, 5), 30)
    first = WarmupCosine(optimizer(), 30, 5)
    assert rates(first, 12) == whole[:12]
    second = WarmupCosine(optimizer(), 30, 5)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates(second, 18) == whole[12:]


# ---------------------------------------------------------------------------------------------------- recorded steps

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
}


def objective() -> Objective:
    torch.manual_seed(0)
    model = Standardized(Mlp(3, 1, hidden=[8]), torch.zeros(3).double(), torch.ones(3).double())
    return Objective(model, GaussianHead(), NoPrior(), 40.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_at_changing_rates_are_recorded_once_and_are_those_of_torch(name: str) -> None:
    """Bit for bit those of a plain loop: forward, backward, step of the optimiser, step of the scheduler."""
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(12, 4, generator=generator, dtype=torch.float64) for _ in range(30)]
    ones, zeros = torch.ones(12).double(), torch.zeros(12).double()
    batches = [Batch(Rows(one[:, :3].contiguous(), one[:, 3].contiguous(), ones, zeros), 40 / 12) for one in draw]
    recorded, plain = objective(), objective()
    made, bare = OPTIMIZERS[name](recorded.parameters()), OPTIMIZERS[name](plain.parameters())
    one, other = WarmupCosine(made, 30, 5), WarmupCosine(bare, 30, 5)
    step, tapes, losses = Step(recorded), set[int](), []
    for batch in batches:
        losses.append(float(step(batch, made, made)))
        one.step()
        tapes |= {id(tape) for tape in step.updates.values()}
        loss = plain.descent(batch)
        bare.zero_grad()
        loss.backward()
        bare.step()
        other.step()
        assert losses[-1] == float(loss.detach())
        assert isinstance(made.param_groups[0]["lr"], float)
    assert len(tapes) == 1, "a changing rate undoes no tape"
    for p, q in zip(recorded.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_rate_that_32_bit_would_round_is_no_tensor_of_32_bit() -> None:
    made = OPTIMIZERS["adam"](objective().parameters())
    held = Rates()
    assert held.fill(made) and held.tensors[0].dtype == torch.float64 and held.tensors[0].item() == 1e-2
    held.tensors = [torch.zeros((), dtype=torch.float32)]
    made.param_groups[0]["lr"] = 0.3
    assert not held.fill(made)
    made.param_groups[0]["lr"] = 0.25
    assert held.fill(made) and held.tensors[0].item() == 0.25


# -------------------------------------------------------------------------------------------------------- whole runs

SCHEDULED = ("optimizer=adam_scheduled", "scheduler.warmup=9", "trainer.max_epochs=5", "model.dropout=0.2")


def state(run_dir: str) -> dict[str, object]:
    return archive.read(Path(run_dir) / "checkpoints" / "last.ckpt")


def test_the_rate_of_a_run_falls_to_zero_over_its_steps() -> None:
    assert train(*SMALL, *SCHEDULED, "early_stopping.patience=null", "run_dir=run") == 0
    steps = summary_of(Path("run"))["num_steps"]
    scheduler = state("run")["lr_schedulers"][0]
    assert (scheduler["num_steps"], scheduler["last_epoch"], scheduler["warmup"]) == (steps, steps, 9)
    with (Path("run") / "metrics.csv").open(encoding="utf-8", newline="") as file:
        found = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    expected = [3e-3 / 9, 3e-3 * 8 / 9]
    expected += [3e-3 * (1 + math.cos(math.pi * (k - 9) / (steps - 9))) / 2 for k in (14, 21, 28, 35)]
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(
    "settings",
    [("average=ema",), ("average=none", "batch=growing", "batch.size=30", "batch.every=1"), ("prior=l1",)],
    ids=["average", "growing", "l1"],
)
def test_neither_chunks_nor_recording_change_a_result(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*SMALL, *SCHEDULED, *settings]
    assert train(*settings, "step.per_chunk=1", "run_dir=one") == 0
    assert train(*settings, "run_dir=auto") == 0
    assert_same_run(Path("one"), Path("auto"))

    def refused(*_: object) -> None:
        raise AssertionError("nothing is to be recorded")

    with monkeypatch.context() as patch:
        patch.setattr(Tape, "__init__", refused)
        patch.setattr("mlefw.training.evaluator.is_replayable", lambda whole: False)
        patch.setattr("mlefw.baseline.derivatives.is_replayable", lambda head: False)
        assert train(*settings, "step.replay=false", "run_dir=anew") == 0
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert repr(state("anew")[part]) == repr(state("auto")[part])


def test_a_run_that_goes_back_has_half_the_rate_whatever_its_chunks() -> None:
    wild = ("head=heteroscedastic", "optimizer=sgd", "optimizer.lr=5", "step.clip_norm=0", "scheduler=warmup_cosine")
    for chunk in ("1", "4", "auto"):
        code = train(*SMALL, *wild, "trainer.max_epochs=6", f"step.per_chunk={chunk}", f"run_dir=k{chunk}")
        assert code == 0
    assert state("k1")["resume"]["recovery"]["epochs"]
    scheduler = state("k1")["lr_schedulers"][0]
    halvings = len(state("k1")["resume"]["recovery"]["epochs"])
    assert scheduler["base_lrs"] == [5 / 2**halvings]
    assert scheduler["last_epoch"] == summary_of(Path("k1"))["num_steps"]
    for chunk in ("4", "auto"):
        assert_same_run(Path("k1"), Path(f"k{chunk}"))


@pytest.mark.parametrize("override", ["trainer.max_epochs=7", "trainer.max_steps=12"])
def test_a_run_of_another_length_is_another_run(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SMALL, *SCHEDULED, "run_dir=run") == 0
    assert train("resume=run", override) == 2
    assert f"{override}: scheduler=warmup_cosine was planned over " in capsys.readouterr().err


def test_a_run_without_an_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    endless = ("trainer.max_epochs=-1", "+trainer.max_time=00:00:10:00")
    assert train(*SMALL, "optimizer=adam_scheduled", *endless, "run_dir=run") == 2
    text = capsys.readouterr().err
    assert "scheduler=warmup_cosine is planned over all steps, and trainer.max_epochs=-1 sets no end" in text
    assert not Path("run").exists()


class Epochs:
    """Two steps in the first epoch, and one more in each."""

    def num_steps(self, epoch: int) -> int:
        return epoch + 1


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["trainer.max_epochs=4"], 2 + 3 + 4 + 5),
        (["trainer.max_epochs=4", "trainer.max_steps=9"], 9),
        (["trainer.max_epochs=4", "trainer.max_steps=900"], 14),
        (["trainer.max_epochs=-1", "trainer.max_steps=23"], 23),
        (["trainer.max_epochs=4", "trainer.limit_train_batches=3"], 2 + 3 + 3 + 3),
    ],
)
def test_the_length_of_a_run(overrides: list[str], steps: int) -> None:
    config = settings_of(read_settings("train", overrides, [], ()))
    assert planned_steps(config, Epochs(), config.trainer.node.get("limit_train_batches")) == steps


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ([], ("adam", "plateau", "clipped", 5e-3)),
        (["model=cnn"], ("adam_scheduled", "warmup_cosine", "standard", 3e-3)),
        (["model=transformer"], ("adam_scheduled", "warmup_cosine", "standard", 3e-3)),
        (["model=cnn", "optimizer.lr=1e-3"], ("adam_scheduled", "warmup_cosine", "standard", 1e-3)),
        (["model=cnn", "scheduler=none"], ("adam_scheduled", "none", "standard", 3e-3)),
        (["optimizer=sgd", "model=cnn"], ("sgd", "none", "standard", 0.1)),
        (["model=transformer", "optimizer=lbfgs"], ("lbfgs", "none", "standard", 1.0)),
        (["model=cnn", "optimizer=adamw", "scheduler=warmup_cosine"], ("adamw", "warmup_cosine", "standard", 5e-3)),
    ],
)
def test_what_a_model_implies_and_what_a_user_chooses(overrides, found) -> None:
    config = read_settings("train", overrides, [], ())
    choices = [config["choices"][group] for group in ("optimizer", "scheduler", "inputs")]
    assert (*choices, config["optimizer"]["lr"]) == found
    assert config["step"]["clip_norm"] == (1.0 if found[0].startswith("adam") else 0.0)
