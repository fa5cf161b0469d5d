"""What each launcher of docs/scale.md keeps of the promises of a sweep: the real packages, on this machine."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, summary_of
from faulty_model import FAULTY

from mlefw.sweep.search.study import JOURNAL, NAME

ENGINES = {
    "fork": ("hydra.launcher.jobs=2",),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.launcher.timeout_min=10",),
    # Nobody looks at the dashboard, whose ten processes take most of a start.
    "ray": ("++hydra.launcher.ray.init.num_cpus=2", "++hydra.launcher.ray.init.include_dashboard=false"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "net.yaml").write_text("# mine\n_target_: faulty.Net\nfault: none\n", "utf-8")
    return tmp_path


def sweep(folder: Path, engine: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    few = ("logger=none", "report=false", "baseline=none", "run_dir=s", f"hydra/launcher={engine}", *ENGINES[engine])
    return subprocess.run(
        [sys.executable, "-m", "mlefw.cli", "train", "-m", *few, *arguments],
        cwd=folder,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def jobs_of(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_costs_one_job_and_the_same_command_does_the_rest(engine: str, folder: Path) -> None:
    faults = "none,error,leave,killed"
    grid = ("model=net", "--config-dir", "conf", "--plugin", "faulty", f"model.fault={faults}", "trainer.max_epochs=1")
    done = sweep(folder, engine, *grid)
    assert done.returncode == 5, done.stdout + done.stderr
    jobs = jobs_of(folder / "s")
    assert [job["status"] for job in jobs] == ["finished", "failed", "failed", "failed"], done.stdout + done.stderr
    assert "no such luck" in jobs[1]["reason"]
    assert "SIGKILL" in jobs[3]["reason"]
    kept = folder / "s" / jobs[0]["run_dir"] / "summary.json"
    before = kept.read_bytes()
    again = sweep(folder, engine, *grid, MENDED="1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [job["status"] for job in jobs_of(folder / "s")] == ["kept"] + ["finished"] * 3
    assert kept.read_bytes() == before
    assert all(summary_of(folder / "s" / job["run_dir"])["status"] == "finished" for job in jobs_of(folder / "s"))


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("joblib", {"not run", "failed"}), ("submitit_local", {"not run", "failed"}), ("ray", {"finished"})],
)
def test_a_kill_of_the_worker_of_the_launcher(engine: str, expected: set[str], folder: Path) -> None:
    grid = (
        "model=net",
        "--config-dir",
        "conf",
        "--plugin",
        "faulty",
        "model.fault=none,worker",
        "trainer.max_epochs=1",
    )
    done = sweep(folder, engine, *grid)
    whole, killed = jobs_of(folder / "s")
    assert whole["status"] in {"finished", *({"not run"} if engine == "joblib" else ())}, done.stdout + done.stderr
    assert killed["status"] in expected, done.stdout + done.stderr
    assert done.returncode == (0 if expected == {"finished"} else 5)
    again = sweep(folder, engine, *grid)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {job["status"] for job in jobs_of(folder / "s")} <= {"kept", "finished"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_has_exactly_its_trials(engine: str, folder: Path) -> None:
    space = ("hydra/sweeper=search", "search.trials=6", "optimizer.lr=tag(log,interval(1e-3,1))")
    done = sweep(folder, engine, *space, "model=linear", "trainer.max_epochs=9")
    assert done.returncode == 0, done.stdout + done.stderr
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "s" / JOURNAL)))
    trials = optuna.load_study(study_name=NAME, storage=storage).trials
    states = Counter(trial.state.name for trial in trials)
    assert states.total() == 6
    assert states.keys() == {"COMPLETE", "PRUNED"}
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 6
    assert "6 of 6 jobs finished" in done.stdout


def test_the_table_has_the_engines_that_there_are() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (header,) = re.findall(r"^\| promise \|(.*)\|$", text, re.M)
    assert re.findall(r"`(\w+)`", header) == [*ENGINES, "submitit_slurm"]
