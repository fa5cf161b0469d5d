"""Whole runs on datasets of torch: the figures of the same arrays, to the last digit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Run
from sklearn.datasets import load_digits

SETS = """
import numpy as np
import torch
from torch.utils.data import TensorDataset, Dataset

SAVED = dict(np.load("d.npz"))


def make():
    return TensorDataset(torch.from_numpy(SAVED["x"]), torch.from_numpy(SAVED["y"]), torch.from_numpy(SAVED["w"]))


class Fails(Dataset):
    def __len__(self):
        return 9

    def __getitem__(self, index):
        return 1 / 0
"""
FEW = ("model=cnn", "model.channels=[4]", "trainer.max_epochs=2", "baseline=none", "head=categorical")
QUIET = ("report=false", "plots=false", "logger=none", "callback=none")


def summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_a_dataset_trains_to_the_figures_of_its_arrays_and_goes_on(mlefw: Run, tmp_path: Path) -> None:
    (tmp_path / "sets.py").write_text(SETS, encoding="utf-8")

    def run(*arguments: str) -> str:
        done = mlefw(*arguments)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    digits = load_digits()
    x, y = digits.images[:300, None].astype(np.uint8), digits.target[:300]
    np.savez(tmp_path / "d.npz", x=x, y=y, w=1.0 + np.arange(300) % 2)
    plugin = ("--plugin", "sets")
    own = ("data=torch", "data.dataset=sets:make", *FEW, *QUIET)
    said = run("train", *own, "run_dir=refused")
    assert said.startswith("2") and "sets is not admitted\n  expected: --plugin sets" in said
    said = run("train", *own, *plugin, "data.dataset=sets:Fails", "run_dir=refused")
    assert said.startswith("2") and "a plugin failed with ZeroDivisionError" in said and "sets.py, line 18" in said
    assert not (tmp_path / "refused").exists()
    assert run("check", *own, *plugin).startswith("0")
    assert run("train", "data=npz", "data.path=d.npz", "data.weight=w", *FEW, *QUIET, "run_dir=npz")[0] == "0"
    assert run("train", *own, *plugin, "run_dir=set")[0] == "0"
    assert summary(tmp_path / "set")["metrics"] == summary(tmp_path / "npz")["metrics"]
    assert run("evaluate", "run=set", "split=train", "output=e.json", *plugin)[0] == "0"
    scored = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
    assert abs(scored - summary(tmp_path / "set")["metrics"]["train"]["nll_nats"]) < 1e-12
    np.savez(tmp_path / "n.npz", x=x[:7])
    assert run("predict", "run=set", "data.path=n.npz", "output=p.csv", *plugin)[0] == "0"
    assert len((tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()) == 8
    assert run("train", *own, *plugin, "scheduler=plateau", "run_dir=whole")[0] == "0"
    part = ("scheduler=plateau", "trainer.max_epochs=1", "run_dir=part")
    assert run("train", *own, *plugin, *part)[0] == "0"
    assert run("train", "resume=part", "trainer.max_epochs=2", *plugin)[0] == "0"
    assert summary(tmp_path / "part")["metrics"] == summary(tmp_path / "whole")["metrics"]
