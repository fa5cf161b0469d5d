"""The script for machines with a CUDA device, tried without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mlefw.configuration.groups import members


def gpu(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLEFW_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = [str(ROOT / "scripts" / "gpu"), *arguments]
    return subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_a_device_it_says_so_and_does_nothing(tmp_path: Path) -> None:
    done = gpu(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpu: there is no CUDA device: nothing was checked (--device cpu tries the script)"
    ]
    assert not list(tmp_path.iterdir())


def test_every_head_is_compared(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--device", "cpu", "--only", "heads")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert set(found["parts"]) == {"heads"}
    assert set(found["parts"]["heads"]["heads"]) == set(members("head"))
    assert found["parts"]["heads"]["worst"] == 0


def test_a_part_for_which_there_is_no_time_is_not_passed(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--device", "cpu", "--seconds", "-1", "--output", "none.json")
    assert done.returncode == 1
    found = json.loads((tmp_path / "none.json").read_text(encoding="utf-8"))
    assert not found["passed"]
    assert {part["left_out"] for part in found["parts"].values()} == {"there was no time left"}


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--device", "cpu", "--rows", "2000")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert set(found["parts"]) == {"heads", "resume", "mixed", "ddp", "streaming", "tensors", "speed"}
    assert all(part["passed"] for part in found["parts"].values())
    speeds = found["parts"]["speed"]["table"]
    assert set(speeds["batch 128"]) == {"bare", "mlefw", "mlefw compiled", "Lightning"}
    assert all(speed > 0 for row in speeds.values() for speed in row.values())
