"""Whole runs on datasets of torch: the figures of the same arrays, to the last digit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from sklearn.datasets import load_digits

from mlefw.cli import run as command

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


LOADERS = """
import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

SAVED = dict(np.load("d.npz"))
X, Y = torch.from_numpy(SAVED["x"]), torch.from_numpy(SAVED["y"])


class Stream(IterableDataset):
    noise = 0.0

    def __iter__(self):
        for x, y in zip(X, Y):
            yield x + self.noise * torch.randn(x.shape), y


class Noisy(Stream):
    noise = 1.0


class Module(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Stream(), batch_size=7)


def arrays():
    return TensorDataset(X, Y)


def stream():
    return DataLoader(Stream(), batch_size=16)


def shuffled():
    return DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)


def paired(items):
    return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])


def collated():
    return DataLoader(TensorDataset(X, Y), batch_size=16, collate_fn=paired)


def noisy():
    return DataLoader(Noisy(), batch_size=16)


def chosen():
    return DataLoader(TensorDataset(X, Y), sampler=SubsetRandomSampler(range(9)))
"""


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:lightning")
def test_a_loader_or_a_module_of_loaders_serves_the_rows(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "row_loaders.py").write_text(LOADERS, encoding="utf-8")
    digits = load_digits()
    np.savez(tmp_path / "d.npz", x=digits.images[:90, None].astype(np.float32), y=digits.target[:90])
    few = [item for item in FEW if "max_epochs" not in item]
    few += ["trainer.max_epochs=1", *QUIET, "data=torch", "--plugin", "row_loaders"]
    for name in ("arrays", "stream", "shuffled", "collated", "Module"):
        assert command(["train", *few, f"data.dataset=row_loaders:{name}", f"run_dir={name}"]) == 0, capsys.readouterr()
        assert summary(tmp_path / name)["metrics"] == summary(tmp_path / "arrays")["metrics"], name
    capsys.readouterr()
    for name, words in {
        "noisy": "batch 0 is not the same when it is read twice",
        "chosen": "SubsetRandomSampler",
    }.items():
        assert command(["check", *few, f"data.dataset=row_loaders:{name}"]) == 2
        said = capsys.readouterr().err
        assert words in said and ("augment=" in said or "Subset as its dataset" in said)
