"""The script for machines with a CUDA device, tried without one."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from mlefw.configuration.groups import members


def gpu(folder: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLEFW_PYTHON": python, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = [str(ROOT / "scripts" / "gpu"), *arguments]
    return subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The program that the script starts, in this process, where there is no device; its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    program = importlib.import_module("gpu_check")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
        return program.main()

    return run


def test_the_script_starts_the_program_with_its_arguments(tmp_path: Path) -> None:
    echo = shutil.which("echo")
    assert echo is not None
    done = gpu(tmp_path, "--device", "cpu", "--only", "heads", python=echo)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / "scripts" / "gpu_check.py"), "--device", "cpu", "--only", "heads"]


def test_without_a_device_it_says_so_and_does_nothing(
    check: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check() == 2
    assert capsys.readouterr().err.splitlines() == [
        "gpu: there is no CUDA device: nothing was checked (--device cpu tries the script)"
    ]
    assert not list(tmp_path.iterdir())


def test_every_head_is_compared(check: Callable[..., int], tmp_path: Path) -> None:
    assert check("--device", "cpu", "--only", "heads") == 0
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert set(found["parts"]) == {"heads"}
    assert set(found["parts"]["heads"]["heads"]) == set(members("head"))
    assert found["parts"]["heads"]["worst"] == 0


def test_a_part_for_which_there_is_no_time_is_not_passed(check: Callable[..., int], tmp_path: Path) -> None:
    assert check("--device", "cpu", "--seconds", "-1", "--output", "none.json") == 1
    found = json.loads((tmp_path / "none.json").read_text(encoding="utf-8"))
    assert not found["passed"]
    assert {part["left_out"] for part in found["parts"].values()} == {"there was no time left"}


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--device", "cpu", "--rows", "2000")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    trained = {"resume", "mixed", "ddp", "streaming", "tensors", "ensembles", "populations", "speed"}
    assert set(found["parts"]) == {"heads", *trained}
    assert all(part["passed"] for part in found["parts"].values())
    speeds = found["parts"]["speed"]["table"]
    assert set(speeds["batch 128"]) == {"bare", "mlefw", "mlefw compiled", "Lightning"}
    assert all(speed > 0 for row in speeds.values() for speed in row.values())
