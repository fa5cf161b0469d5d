"""Scoring in blocks: the figures of one pass over everything, pictures, and files that cannot be scored."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mlefw.cli import run
from mlefw.objective.objective import evaluate
from mlefw.reading import csv_blocks
from mlefw.run import build, checkpoint
from mlefw.score.figures import StreamedFigures, figures_on

FEW = (
    "trainer.precision=64",
    "model=linear",
    "batch=full",
    "trainer.max_epochs=3",
    "logger=none",
    "report=false",
    "plots=false",
    "run_dir=r",
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        return run(list(arguments))


def frame(head: str, num_rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(2)
    x = random.normal(size=(num_rows, 2))
    eta = x @ [1.0, -0.5]
    targets = {
        "gaussian": eta + random.normal(size=num_rows),
        "bernoulli": (random.random(num_rows) < 1 / (1 + np.exp(-eta))).astype(int),
        "categorical": random.choice(["a", "b", "c"], num_rows),
        "poisson": random.poisson(np.exp(0.5 * eta)),
    }
    return pd.DataFrame({"x": x[:, 0], "z": x[:, 1], "w": random.integers(0, 3, num_rows), "y": targets[head]})


@pytest.mark.parametrize("head", ["gaussian", "bernoulli", "categorical", "poisson"])
@pytest.mark.parametrize("extra", ["uncertainty=laplace", "calibrate"])
def test_blocks_have_the_figures_of_the_whole(head: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if extra == "calibrate":
        extra = {"gaussian": "calibrate=scale", "poisson": "calibrate=none"}.get(head, "calibrate=temperature")
    frame(head).to_csv("d.csv", index=False)
    given = ("data=csv", "data.path=d.csv", "data.target=y", "data.weight=w", f"head={head}", extra)
    assert told("train", *given, *FEW) == 0
    assert told("evaluate", "run=r", "data.path=d.csv", "output=whole.json") == 0
    # Every other block has rows of weight zero alone.
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (700,))
    assert told("evaluate", "run=r", "data.path=d.csv", "output=blocks.json") == 0
    whole, blocks = (json.loads(Path(name).read_text(encoding="utf-8")) for name in ("whole.json", "blocks.json"))
    assert blocks.keys() == whole.keys()
    for part in ("metrics", "laplace"):
        assert blocks.get(part, {}) == pytest.approx(whole.get(part, {}), rel=1e-10, abs=1e-12)
    if "calibration" in whole:
        for when in ("before", "after"):
            assert blocks["calibration"][when] == pytest.approx(whole["calibration"][when], rel=1e-12)


@pytest.mark.parametrize("head", ["gaussian", "bernoulli", "categorical"])
def test_a_tally_beyond_its_bounds_thins_what_it_keeps_and_counts_every_row(head: str) -> None:
    frame(head, 1000).to_csv("d.csv", index=False)
    assert told("train", "data=csv", "data.path=d.csv", "data.target=y", f"head={head}", *FEW) == 0
    trained = checkpoint.load("r")
    rows = build.build_data(trained.config).train
    metrics = build.build_metrics(trained.config, trained.objective.head)
    exact = figures_on(trained.objective, evaluate(trained.objective, rows), rows, metrics)
    tally = StreamedFigures(trained.objective, metrics, max_cells=200)
    for block in rows.blocks(37):
        tally.add(block)
    eta, kept = tally.kept()
    assert 50 <= eta.numel() <= 200
    stride = round(rows.num_rows / len(eta))
    assert torch.equal(kept.y, rows.y[::stride])
    assert torch.equal(eta, trained.objective.eta(rows.x, rows.offset)[::stride].detach())
    assert tally.num_rows == rows.num_rows
    found = tally.figures()
    assert found.keys() == exact.keys()
    whole = trained.objective.head(evaluate(trained.objective, rows).eta)
    grouped = {name for metric in metrics for name in metric.exact(whole, rows.y, rows.weight)}
    assert (grouped == {"spread_trend"}) == (head == "gaussian")
    for name, value in exact.items():
        # By ranks where all rows are there, by moments elsewhere: two correlations of the same two columns.
        close = {"abs": 0.05} if name == "spread_trend" else {"abs": 0.01} if name in grouped else {"rel": 1e-9}
        assert found[name] == pytest.approx(value, **close), name


@pytest.mark.filterwarnings("ignore:metric Crps left out")
def test_a_metric_that_fails_is_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    frame("gaussian").to_csv("d.csv", index=False)
    assert told("train", "data=csv", "data.path=d.csv", "data.target=y", *FEW) == 0
    assert told("evaluate", "run=r", "data.path=d.csv", "output=whole.json") == 0

    def fail(*_: object) -> None:
        raise ValueError("math domain error")

    monkeypatch.setattr("mlefw.metric.crps.Crps.update", fail)
    assert told("evaluate", "run=r", "data.path=d.csv", "output=less.json") == 0
    whole, less = (
        json.loads(Path(name).read_text(encoding="utf-8"))["metrics"] for name in ("whole.json", "less.json")
    )
    assert whole.keys() - less.keys() == {name for name in whole if name.startswith("crps")} != set()
    assert less == {name: whole[name] for name in less}


def test_pictures_of_new_rows(capsys: pytest.CaptureFixture[str]) -> None:
    frame("gaussian").to_csv("d.csv", index=False)
    assert told("train", "data=csv", "data.path=d.csv", "data.target=y", *FEW) == 0
    assert told("evaluate", "run=r", "data.path=d.csv", "plots=p") == 0
    assert {file.stem for file in Path("p").iterdir()} == {"pit", "coverage", "predictions", "residuals"}
    assert told("evaluate", "run=r", "data.path=d.csv", "plots=p") == 2
    assert "plots=p exists" in capsys.readouterr().err
    assert told("evaluate", "run=r", "data.path=d.csv", "plots=no/p") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:0], "0 data rows"),
        (lambda rows: rows.assign(w=0), "every weight is zero"),
        (lambda rows: rows.drop(columns="y"), "lacks these columns\n  'y'"),
        (lambda rows: rows.assign(y=["1"] * 399 + ["many"]), "row 401: 'many'"),
        (lambda rows: rows.assign(w=[1] * 399 + [-1]), "holds -1\n  row 401"),
    ],
)
def test_what_cannot_be_scored(
    change: object, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = frame("gaussian")
    rows.to_csv("d.csv", index=False)
    assert told("train", "data=csv", "data.path=d.csv", "data.target=y", "data.weight=w", *FEW) == 0
    change(rows).to_csv("e.csv", index=False)  # type: ignore[operator]
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (700,))
    capsys.readouterr()
    assert told("evaluate", "run=r", "data.path=e.csv", "output=e.json", "plots=p") == 2
    assert message in capsys.readouterr().err
    assert not Path("e.json").exists()
    assert not Path("p").exists()
