"""A sweep always finishes: whatever happens to a job happens to that job alone, and can be repeated."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, summary_of
from faulty_model import FAULTY
from warm import Started

from mlefw.cli import run as run_program
from mlefw.errors import UsageError
from mlefw.run.directory import claim, default_path
from mlefw.sweep import sweep
from mlefw.system.fork_pool import Ended, Pool
from mlefw.system.signals import deferred

FAULTS = {"error": 2, "leave": 2, "abort": 134, "killed": 137, "vanish": 0, "memory": 6}


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "net.yaml").write_text("# mine\n_target_: faulty.Net\nfault: none\n", "utf-8")
    few = ("model=net", "--config-dir", "conf", "--plugin", "faulty", "logger=none", "run_dir=s")
    return ("train", "-m", *few)


def jobs_of(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    return found


def test_a_fault_costs_one_job_and_the_same_command_runs_it_again(
    mlefw: Run, tmp_path: Path, faulty: tuple[str, ...]
) -> None:
    grid = ("model.fault=none," + ",".join(FAULTS), "trainer.max_epochs=2")
    done = mlefw(*faulty, *grid)
    assert done.returncode == 5, done.stderr
    jobs = {job["overrides"][0].partition("=")[2]: job for job in jobs_of(tmp_path / "s")}
    assert {name: job["exit_code"] for name, job in jobs.items()} == {"none": 0, **FAULTS}
    assert [name for name, job in jobs.items() if job["status"] == "finished"] == ["none"]
    assert {job["status"] for name, job in jobs.items() if name != "none"} == {"failed"}
    words = {
        "error": "no such luck",
        "leave": "sys.exit(0)",
        "abort": "SIGABRT",
        "killed": "SIGKILL",
        "vanish": "without a result",
        "memory": "out of memory",
    }
    for name, word in words.items():
        assert word in jobs[name]["reason"]
        assert word in done.stdout
        assert summary_of(tmp_path / "s" / jobs[name]["run_dir"])["status"] == "failed"
    assert "faulty.py" in (tmp_path / "s" / jobs["abort"]["run_dir"] / "output.log").read_text("utf-8")
    assert "1 of 7 jobs finished" in done.stdout
    with (tmp_path / "s" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [job["status"] for job in jobs.values()]

    kept = tmp_path / "s" / jobs["none"]["run_dir"] / "summary.json"
    before = kept.read_bytes()
    again = mlefw(*faulty, *grid, MENDED="1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [job["status"] for job in jobs_of(tmp_path / "s")] == ["kept"] + ["finished"] * 6
    assert kept.read_bytes() == before
    assert "7 of 7 jobs finished (1 of them before)" in again.stdout
    assert len(list((tmp_path / "s" / "superseded").iterdir())) == 6
    assert json.loads(before)["metrics"]["validation"]["nll_nats"] == jobs["none"]["nll_nats"]


def begun(
    started: Callable[..., Started], tmp_path: Path, arguments: tuple[str, ...], fault: str
) -> tuple[Started, int]:
    """A sweep whose first job is in its first steps, and the process of that job."""
    long = (f"model.fault={fault}", "seed=0,1,2", "hydra.launcher.jobs=1", "trainer.max_epochs=2000")
    program, marker = started(*arguments, *long), tmp_path / "started"
    while not (marker.exists() and marker.read_text(encoding="utf-8")):
        assert program.is_alive(), program.wait()
        time.sleep(0.05)
    return program, int(marker.read_text(encoding="utf-8"))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_sweep_with_checkpoints(
    tmp_path: Path, started: Callable[..., Started], faulty: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    program, pid = begun(started, tmp_path, faulty, "slow")
    with pytest.raises(UsageError, match="another sweep"), sweep.locked(tmp_path / "s"):
        pytest.fail("two sweeps in one directory")
    os.kill(program.pid, number)
    done = program.wait()
    assert done.returncode == code, done
    assert number.name in done.stderr
    assert is_gone(pid)
    first, *others = jobs_of(tmp_path / "s")
    assert (first["status"], first["exit_code"]) == ("stopped", code)
    assert (tmp_path / "s" / first["run_dir"] / "checkpoints" / "last.ckpt").is_file()
    assert [job["status"] for job in others] == ["not run", "not run"]
    assert done.stdout.count("not run") == 2


def test_a_second_signal_leaves_at_once(
    tmp_path: Path, started: Callable[..., Started], faulty: tuple[str, ...]
) -> None:
    program, pid = begun(started, tmp_path, faulty, "deaf")
    os.kill(program.pid, signal.SIGTERM)
    time.sleep(1)
    assert program.is_alive()
    os.kill(program.pid, signal.SIGTERM)
    done = program.wait()
    assert done.returncode == 143, done
    assert is_gone(pid)
    assert [job["exit_code"] for job in jobs_of(tmp_path / "s")] == [137, None, None]


def test_a_job_that_takes_too_long_is_ended_with_its_own_children(tmp_path: Path) -> None:
    found: dict[int, Ended] = {}
    assert torch.get_num_threads()  # what a fork would import takes part of its time, too

    def sleep() -> int:
        child = subprocess.Popen(["sleep", "600"])
        (tmp_path / "child").write_text(str(child.pid), encoding="utf-8")
        time.sleep(600)
        return 0

    with deferred(), Pool(2, 1, 2.0, found.__setitem__) as pool:
        pool.submit(0, sleep, tmp_path / "0.log")
        pool.submit(1, lambda: 3, tmp_path / "1.log")
        pool.drain()
    assert (found[0].code, found[0].is_late) == (-signal.SIGTERM, True)
    assert (found[1].code, found[1].is_late) == (3, False)
    for _ in range(100):
        if is_gone(int((tmp_path / "child").read_text(encoding="utf-8"))):
            return
        time.sleep(0.05)
    pytest.fail("a grandchild is left")


def test_a_sweep_may_grow(mlefw: Run, tmp_path: Path) -> None:
    few = ("train", "-m", "model=linear", "trainer.max_epochs=1", "logger=none", "run_dir=s")
    assert mlefw(*few, "seed=1,2").returncode == 0
    done = mlefw(*few, "seed=0,1,2")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job["overrides"][0]: (job["status"], job["run_dir"]) for job in jobs_of(tmp_path / "s")}
    expected = {
        "seed=0": ("finished", "000_seed-0"),
        "seed=1": ("kept", "000_seed-1"),
        "seed=2": ("kept", "001_seed-2"),
    }
    assert jobs == expected
    other = mlefw(*few, "seed=1,2", "optimizer.lr=0.5")
    assert other.returncode == 5
    assert "already holds a run" in other.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("hydra.launcher.jobs=0", "hydra.launcher.jobs=0"),
        ("hydra.launcher.job=2", "hydra.launcher.job"),
        ("hydra.launcher.timeout_s=-1", "timeout_s=-1"),
        ("hydra.launcher.threads=many", "threads=many"),
    ],
)
def test_settings_of_the_launcher_are_checked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert run_program(["train", "-m", "seed=0,1", setting, "run_dir=s"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def _claims(path: Callable[[], Path], barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        results.put(str(claim(path())))
    except UsageError:
        results.put("")


@pytest.mark.parametrize(("path", "count"), [(default_path, 8), (lambda: Path("same"), 1)])
def test_eight_runs_started_at_once_share_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Callable[[], Path], count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_claims, args=(path, barrier, results)) for _ in range(8)]
    for process in processes:
        process.start()
    claimed = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(claimed) - {""}) == count == len([name for name in claimed if name])


@pytest.mark.parametrize(
    "launcher", [("basic",), pytest.param(("joblib", "hydra.launcher.n_jobs=2"), marks=pytest.mark.slow)]
)
def test_a_killed_job_costs_one_job_under_another_launcher(
    mlefw: Run, tmp_path: Path, faulty: tuple[str, ...], launcher: tuple[str, ...]
) -> None:
    more = (f"hydra/launcher={launcher[0]}", *launcher[1:], "model.fault=killed,none", "trainer.max_epochs=1")
    done = mlefw(*faulty, *more)
    assert done.returncode == 5, done.stderr
    killed, whole = jobs_of(tmp_path / "s")
    assert (killed["status"], whole["status"]) == ("failed", "finished")
    assert "SIGKILL" in killed["reason"]
