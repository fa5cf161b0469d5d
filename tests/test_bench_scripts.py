"""The benchmark scripts start, and the one of steps measures a run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BENCH = ROOT / "scripts" / "bench"
# The arguments of `process.py` are a command that it runs.
SCRIPTS = sorted(script for script in BENCH.glob("*.py") if script.name != "process.py")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_says_what_it_does(script: Path) -> None:
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.slow
def test_the_script_of_steps_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_step", BENCH / "step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_step", module)
    spec.loader.exec_module(module)
    for whole in (False, True):
        found = module.measure(module.Case(32, 400, 4, whole), 1, False, {"ours": []})
        assert set(found) == {"bare", "ours"}
        assert all(seconds > 0 for values in found.values() for seconds in values)
