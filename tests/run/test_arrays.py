"""Whole runs on arrays: images of digits against the table of their pixels, and series with positions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Run
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

QUIET = ("report=false", "plots=false", "logger=none", "callback=none")

NETS = '''
import torch
from torch import nn


class Steps(nn.Module):
    """Looks at each step and its two neighbours."""

    replayable = True

    def __init__(self, input_shape: tuple[int, ...], positions: tuple[int, ...], eta_dim: int) -> None:
        super().__init__()
        assert positions == input_shape[:1]
        self.first, self.last = nn.Conv1d(input_shape[1], 8, 3, padding=1), nn.Linear(8, eta_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x.mT).relu().mT)


class Wrong(Steps):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, :-1]
'''


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def series(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of three classes that the inputs tell apart, the first of each row masked."""
    random = np.random.default_rng(3)
    x = random.normal(size=(90, 6, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.int64) + (x[..., 1] + random.normal(size=(90, 6)) > 0.5)
    weight = np.ones((90, 6))
    weight[:, 0] = 0
    y[:, 0] = -100
    np.savez(path, x=x, y=y, w=weight, name=np.array([f"row {k}" for k in range(90)]))
    return x, y, weight


@pytest.fixture
def run(mlefw: Run, tmp_path: Path) -> Callable[..., str]:
    """A command that knows the networks of `nets` as a plugin; what it says."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    for name in ("Steps", "Wrong"):
        text = f"# A plugin.\n_target_: nets.{name}\n"
        (tmp_path / "conf" / "model" / f"{name.lower()}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")

    def told(*arguments: str) -> str:
        plugins = ["--plugin", "nets", *(["--config-dir", "conf"] if arguments[0] == "train" else [])]
        done = mlefw(*arguments, *plugins)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    return told


def test_images_of_digits_are_the_table_of_their_pixels(run: Callable[..., str], tmp_path: Path) -> None:
    digits = load_digits()
    few = digits.target < 4
    np.savez(tmp_path / "d.npz", x=digits.images[few, None].astype(np.uint8), y=digits.target[few])
    table = pd.DataFrame(digits.data[few], columns=[f"p{k}" for k in range(64)])
    table.assign(y=digits.target[few]).to_csv(tmp_path / "d.csv", index=False)
    common = ("head=categorical", "model=linear", "prior=l2", "data.standardize=false", "batch=full", "optimizer=lbfgs")
    common += ("trainer.max_epochs=40", "inputs=standard", *QUIET)
    assert run("train", "data=csv", "data.path=d.csv", "data.target=y", *common, "run_dir=table")[0] == "0"
    assert run("train", "data=npz", "data.path=d.npz", *common, "run_dir=arrays")[0] == "0"
    table, arrays = summary(tmp_path / "table"), summary(tmp_path / "arrays")
    assert arrays["input_shape"] == [1, 8, 8] and "input_shape" not in table
    assert arrays["num_observations"] == arrays["num_rows"] == table["num_rows"]
    for split, figures in table["metrics"].items():
        for name in ("nll_nats", "objective"):
            assert arrays["metrics"][split][name] == pytest.approx(figures[name], rel=1e-7)
        assert arrays["null"][split]["nll_nats"] == pytest.approx(table["null"][split]["nll_nats"], rel=1e-12)
        exact = table["baseline_map"][split]["nll_nats"]
        assert arrays["baseline_map"][split]["nll_nats"] == pytest.approx(exact, rel=1e-9)
    kept = np.load(tmp_path / "arrays" / "row_nll.npz")["test_nll_nats"]
    assert len(kept) == table["num_rows"]["test"]


def test_a_network_of_bundled_images_is_that_of_their_file(run: Callable[..., str], tmp_path: Path) -> None:
    """The same figures to the last digit, and new images are read from a file."""
    digits = load_digits()
    np.savez(tmp_path / "d.npz", x=digits.images[:, None].astype(np.uint8), digit=digits.target)
    common = ("model=cnn", "model.channels=[4,8]", "head=categorical", "trainer.max_epochs=2", "baseline=none", *QUIET)
    assert run("train", "data=digits_images", *common, "run_dir=bundled")[0] == "0"
    named = ("data=npz", "data.path=d.npz", "data.target=digit")
    assert run("train", *named, *common, "run_dir=file")[0] == "0"
    assert summary(tmp_path / "bundled")["metrics"] == summary(tmp_path / "file")["metrics"]
    for one in ("bundled", "file"):
        assert run("evaluate", f"run={one}", "data.path=d.npz", f"output={one}.json")[0] == "0"
    scores = [json.loads((tmp_path / f"{one}.json").read_text(encoding="utf-8")) for one in ("bundled", "file")]
    assert scores[0]["metrics"] == scores[1]["metrics"] and scores[0]["num_rows"] == 1797


def test_the_map_of_pixels_is_that_of_scikit_learn(run: Callable[..., str], tmp_path: Path) -> None:
    digits = load_digits()
    x = digits.images.reshape(-1, 1, 8, 8).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=digits.target)
    settings = ("data.test_fraction=0", "data.validation_fraction=0", "prior=l2", "prior.scale=0.05", "model=linear")
    settings += ("head=categorical", "trainer.max_epochs=1", *QUIET, "run_dir=run")
    assert run("train", "data=npz", "data.path=d.npz", *settings)[0] == "0"
    # One mean and one standard deviation for the one channel.
    z = (x.reshape(-1, 64) - x.mean(dtype=float)) / x.std(dtype=float)
    oracle = LogisticRegression(C=0.05**2, tol=1e-10, max_iter=5000).fit(z, digits.target)
    logits = torch.from_numpy(oracle.decision_function(z))
    expected = float(cross_entropy(logits, torch.from_numpy(digits.target)))
    assert summary(tmp_path / "run")["baseline_map"]["train"]["nll_nats"] == pytest.approx(expected, rel=1e-6)


def test_a_plain_module_trains_on_steps_and_goes_on_evaluates_and_predicts(
    run: Callable[..., str], tmp_path: Path
) -> None:
    _, y, weight = series(tmp_path / "s.npz")
    settings = (
        "data=npz",
        "data.path=s.npz",
        "data.weight=w",
        "data.id=name",
        "head=categorical",
        "model=steps",
        *QUIET,
    )
    assert run("train", *settings, "trainer.max_epochs=4", "run_dir=whole").startswith("0")
    assert run("train", *settings, "trainer.max_epochs=2", "run_dir=parts").startswith("0")
    assert run("train", "resume=parts", "trainer.max_epochs=4").startswith("0")
    found = summary(tmp_path / "whole")
    assert summary(tmp_path / "parts")["metrics"] == found["metrics"]
    assert found["num_observations"] == {"train": 270, "validation": 90, "test": 90} and found["nll_se_unit"] == "rows"
    assert "calibration_p_value" not in found["metrics"]["test"] and "ece_15" in found["metrics"]["test"]
    assert run("predict", "run=whole", "data.path=s.npz", "output=p.csv").startswith("2")
    assert run("predict", "run=whole", "data.path=s.npz", "output=p.npz").startswith("0")
    predicted = np.load(tmp_path / "p.npz")
    assert predicted["nll_nats"].shape == y.shape and predicted["name"][7] == "row 7"
    probabilities = np.stack([predicted[f"prob_{k}"] for k in range(3)], -1)
    chosen = np.take_along_axis(probabilities, np.maximum(y, 0)[..., None], -1)[..., 0]
    assert np.allclose(predicted["nll_nats"][weight > 0], -np.log(chosen)[weight > 0], rtol=1e-9)
    assert np.isnan(predicted["nll_nats"][weight == 0]).all()
    assert run("evaluate", "run=whole", "data.path=s.npz", "output=e.json").startswith("0")
    scored = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    means = np.nanmean(predicted["nll_nats"], 1)
    assert scored["nll_nats"] == pytest.approx(means.mean(), rel=1e-9)
    assert scored["nll_se"] == pytest.approx(means.std(ddof=1) / np.sqrt(90), rel=1e-9)


def test_what_does_not_fit_is_refused_before_anything_is_written(run: Callable[..., str], tmp_path: Path) -> None:
    series(tmp_path / "s.npz")
    settings = ("data=npz", "data.path=s.npz", "data.weight=w", "head=categorical", *QUIET, "run_dir=run")
    said = run("train", *settings, "model=wrong")
    assert said.startswith("2") and "Wrong returned shape (1, 5, 3), expected (1, 6, 3)" in said
    said = run("train", *settings, "model=steps", "uncertainty=laplace")
    assert said.startswith("2") and "rows of one observation" in said
    said = run("train", *settings, "model=steps", "inputs=piecewise_linear")
    assert said.startswith("2") and "columns of a table" in said
    assert not (tmp_path / "run").exists()


def test_a_folder_and_a_store_give_the_run_of_the_file(run: Callable[..., str], tmp_path: Path) -> None:
    x, y, weight = series(tmp_path / "s.npz")
    (tmp_path / "folder").mkdir()
    for name, array in (("x", x), ("y", y), ("w", weight)):
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    settings = ("data=npz", "data.weight=w", "head=categorical", "model=steps", "trainer.max_epochs=2", *QUIET)
    found = []
    for name, path, stream in (("file", "s.npz", "auto"), ("mapped", "folder", "false"), ("stored", "folder", "true")):
        assert run("train", *settings, f"data.path={path}", f"data.stream={stream}", f"run_dir={name}")[0] == "0"
        found.append(summary(tmp_path / name)["null"])
        if name == "mapped":
            assert summary(tmp_path / name)["metrics"] == summary(tmp_path / "file")["metrics"]
    assert found[0] == found[1] == found[2]
