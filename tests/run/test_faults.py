"""Killed, out of disk, out of memory, diverged: what is left is whole, and the exit code says why."""

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import summary_of
from interrupted import QUIET, assert_same_run, train
from warm import Started

from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.cli import run
from mlefw.command.outermost import guarded
from mlefw.objective.objective import Objective
from mlefw.run import archive
from mlefw.training.module import LikelihoodModule

FEW = ("model.hidden=[4]", "trainer.max_epochs=3", *QUIET)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def wait_for(process: Started, file: Path) -> None:
    while process.is_alive() and not file.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_to_the_same_numbers(
    tmp_path: Path, started: Callable[..., Started], kills: int
) -> None:
    settings = ("model.hidden=[16]", "model.dropout=0.1", "batch.size=16", "step.per_chunk=4", "report=false")
    settings = (*settings, "early_stopping.patience=null", f"trainer.max_epochs={4 * kills}", "logger=none")
    settings = (*settings, "checkpoint.min_seconds=0", "checkpoint.every_steps=8")
    assert train(*settings, "run_dir=whole") == 0
    draw = random.Random(kills)
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    # Another file system for temporary files than that of the run.
    process = started("train", *settings, "run_dir=part", TMPDIR="/dev/shm")
    for _ in range(kills):
        wait_for(process, last)
        before = last.stat().st_mtime_ns
        while process.is_alive() and last.stat().st_mtime_ns == before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        archive.read(last)
        for file in (tmp_path / "part").glob("*.json"):
            json.loads(file.read_text(encoding="utf-8"))
        process = started("train", "resume=part", TMPDIR="/dev/shm")
    assert process.wait().returncode == 0
    assert not list((tmp_path / "part").rglob("*.tmp"))
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def test_a_second_signal_leaves_at_once_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LikelihoodModule.training_step

    def training_step(self: LikelihoodModule, chunk: Any, index: int) -> None:
        if self.global_step >= 12:
            os.kill(os.getpid(), signal.SIGTERM)
            with torch.no_grad():
                next(self.objective.model.parameters()).fill_(7.0)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the second signal was not heard")
        original(self, chunk, index)

    monkeypatch.setattr(LikelihoodModule, "training_step", training_step)
    assert train(*FEW, "run_dir=r", "step.per_chunk=3") == 143
    content = archive.read(tmp_path / "r" / "checkpoints" / "last.ckpt")
    assert content["resume"]["step"] < 12
    assert not any(bool((value == 7).all()) for value in content["state_dict"].values() if value.ndim == 2)


@pytest.mark.parametrize("place", ["the file", "the end of the archive"])
def test_a_second_signal_while_a_checkpoint_is_written_is_a_signal(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of torch that writes it turns what is raised within it into an error of its own."""
    assert train(*FEW, "run_dir=whole") == 0
    original, calls = archive._Digesting.write, [0]

    def write(self: Any, data: Any) -> int:
        calls[0] += 1
        if calls[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:
                if place == "the file":
                    self.error = error
                    raise
                raise RuntimeError("unexpected pos 64 vs 0") from None
        return original(self, data)

    monkeypatch.setattr(archive._Digesting, "write", write)
    assert train(*FEW, "run_dir=r") == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert summary_of(tmp_path / "r")["status"] == "failed"
    assert not list((tmp_path / "r").rglob("*.ckpt"))


def test_a_full_disk_ends_with_four_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = KeepCheckpoints.on_train_epoch_end
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_train_epoch_end(self: KeepCheckpoints, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            # Checkpoints no longer fit, as on a disk with so many bytes left.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
        original(self, trainer, module)

    monkeypatch.setattr(KeepCheckpoints, "on_train_epoch_end", on_train_epoch_end)
    try:
        code = train(*FEW, "run_dir=r")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = capsys.readouterr().err
    assert code == 4, message
    assert ".ckpt could not be written: File too large" in message
    assert summary_of(tmp_path / "r")["status"] == "failed"
    assert archive.read(tmp_path / "r" / "checkpoints" / "last.ckpt")["resume"]["epoch"] == 1
    assert not list((tmp_path / "r").rglob("*.tmp"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert train("resume=r") == 0
    assert train(*FEW, "run_dir=whole") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "r")


def test_a_deleted_run_directory_ends_with_four(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = KeepCheckpoints.on_train_epoch_end

    def on_train_epoch_end(self: KeepCheckpoints, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            shutil.rmtree("r")
        original(self, trainer, module)

    monkeypatch.setattr(KeepCheckpoints, "on_train_epoch_end", on_train_epoch_end)
    assert train(*FEW, "run_dir=r", "logger=default") == 4
    assert "could not be written" in capsys.readouterr().err
    assert not Path("r").exists()


def test_a_directory_that_cannot_be_written_to_is_found_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("closed").mkdir()
    # To root every directory is open, so the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    assert train(*FEW, "run_dir=closed/r") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_diverged_weights_end_with_three_and_the_best_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = LikelihoodModule.training_step

    def training_step(self: LikelihoodModule, chunk: Any, index: int) -> None:
        if self.current_epoch == 2:
            with torch.no_grad():
                next(self.objective.model.parameters())[0, 0] = float("nan")
        original(self, chunk, index)

    monkeypatch.setattr(LikelihoodModule, "training_step", training_step)
    assert train(*FEW, "run_dir=r", "checkpoint.min_seconds=1000", "step.recoveries=0", "average=none") == 3
    message = capsys.readouterr().err
    assert "not finite at step 19 (epoch 2)" in message
    assert "model.model.layers" in message or "model.model." in message
    assert summary_of(tmp_path / "r")["status"] == "failed"
    kept = archive.read(tmp_path / "r" / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", "run=r", "output=e.json"]) == 0


def test_rows_of_infinite_nll_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    original = Objective.nll

    def descent_fit(self: Objective, batch: Any) -> torch.Tensor:
        return 0 * sum(p.sum() for p in self.parameters()) + float("inf")

    def nll(self: Objective, rows: Any, standardized: bool = False) -> torch.Tensor:
        values = original(self, rows, standardized)
        return torch.where(torch.arange(len(values)) == 3, float("inf"), values) if len(values) == 32 else values

    monkeypatch.setattr(Objective, "descent_fit", descent_fit)
    monkeypatch.setattr(Objective, "nll", nll)
    assert train(*FEW, "run_dir=r", "optimizer=sgd", "step.per_chunk=1", "step.recoveries=0") == 3
    assert "not finite at position 3 of the rows" in capsys.readouterr().err


def test_a_first_validation_that_is_not_a_number_blocks_no_later_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LikelihoodModule.on_validation_epoch_end

    def on_validation_epoch_end(self: LikelihoodModule) -> None:
        original(self)
        if self.global_step == 0:
            self.figures["validation"]["nll_nats"] = float("nan")

    monkeypatch.setattr(LikelihoodModule, "on_validation_epoch_end", on_validation_epoch_end)
    assert train(*FEW, "run_dir=r", "early_stopping.patience=null") == 0
    assert summary_of(tmp_path / "r")["best_epoch"] == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
    ids=["python", "torch", "cuda"],
)
def test_out_of_memory_ends_with_six(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def task() -> None:
        raise error

    assert guarded(task) == 6
    assert "batch.max_rows" in capsys.readouterr().err


def test_any_other_failure_of_torch_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def task() -> None:
        raise RuntimeError("shapes do not match")

    assert guarded(task) == 70
    assert "shapes do not match" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_run_that_is_under_way_cannot_be_resumed(
    tmp_path: Path, started: Callable[..., Started], number: signal.Signals
) -> None:
    long = ("trainer.max_epochs=100000", "early_stopping.patience=null")
    process = started("train", *FEW[:1], *QUIET, *long, "run_dir=r")
    wait_for(process, tmp_path / "r" / "checkpoints" / "last.ckpt")
    assert train("resume=r") == 2
    os.kill(process.pid, number)
    assert process.wait().returncode == 128 + number
    assert summary_of(tmp_path / "r")["reason"] == f"stopped by {number.name}"


def test_the_head_of_a_run_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "run=r", "head=poisson"]) == 2
    message = capsys.readouterr().err
    assert "head" in message
    assert "the trained run" in message
