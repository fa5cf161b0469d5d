"""`mlefw train experiment=NAME`, alone and in a sweep."""

import json
from pathlib import Path

import pytest

from mlefw.cli import run as run_program


def test_a_run_directory_with_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert run_program(["train", "experiment=losses_are_likelihoods", "experiment.n=50", f"run_dir={run_dir}"]) == 0
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["experiment"]) == ("finished", "losses_are_likelihoods")
    assert summary["values"]["mse_ratio_low"] == pytest.approx(2 * 0.7**2)
    assert (run_dir / "plots" / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "Loss against NLL" in capsys.readouterr().out


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["train", "experiment=sgd_to_mle", "experiment.batchsize=3"]) == 2
    assert "Did you mean 'batch_size'" in capsys.readouterr().err
    assert run_program(["train", "experiment=sgd_to_mle", "experiment.lr=-1"]) == 2
    assert "expected a positive number" in capsys.readouterr().err
