"""What a shell, a notebook, a cluster or a container sets for other programs changes nothing of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import summary_of
from warm import Warm

RUN = ("train", "model=linear", "trainer.max_epochs=2", "logger=none", "seed=3")
SETTINGS = {
    "notebook on a cluster": {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": "/nowhere/at/all",
        "PYTHONWARNINGS": "error",
        "COLUMNS": "many",
        "LINES": "0",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "FORCE_COLOR": "",
        "JPY_PARENT_PID": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "n[1-2]",
        "CUDA_VISIBLE_DEVICES": "junk",
        "OMP_NUM_THREADS": "auto",
        "MKL_NUM_THREADS": "0",
    },
    "container": {
        "HOME": "/nowhere/at/all",
        "TMPDIR": "/nowhere/at/all",
        "USER": "",
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONHASHSEED": "5",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "0",
    },
}


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MLEFW", "PYTEST"))}
    return {**plain, "OMP_NUM_THREADS": "1", **more}


def start(folder: Path, shell: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlefw.cli", *RUN, "run_dir=r"]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    done = subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert warm.start((*RUN, "run_dir=r"), folder, environment()).wait().returncode == 0
    return folder / "r"


def assert_same(run: Path, other: Path) -> None:
    assert summary_of(run)["metrics"] == summary_of(other)["metrics"]
    assert (run / "report.html").is_file()
    assert len(list((run / "plots").iterdir())) == len(list((other / "plots").iterdir())) > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_variables_that_are_meant_for_others(name: str, plain: Path, tmp_path: Path) -> None:
    done = start(tmp_path, **{"MKL_NUM_THREADS": "1", **SETTINGS[name]})
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if not line.startswith("mlefw: warning")], done.stderr
    assert "nats per row" in done.stdout
    assert_same(plain, tmp_path / "r")


@pytest.mark.parametrize("shell", ["<&- >&- 2>&-", "</dev/null | head -n 1; exit ${PIPESTATUS[0]}"])
def test_streams_that_are_closed(shell: str, plain: Path, tmp_path: Path) -> None:
    assert start(tmp_path, shell).returncode == 0
    assert_same(plain, tmp_path / "r")
