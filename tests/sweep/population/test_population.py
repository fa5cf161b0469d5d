"""A job that is trained with others leaves what it leaves alone: every figure, every file, to rounding."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mlefw.command import train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.run import archive, checkpoint
from mlefw.sweep.population import run, signature
from mlefw.system import warning

_4 = ("trainer.max_epochs=4",)
FEW = ("model.hidden=[4]", "report=false", "plots=false")
CASES: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "seeds and rates, each stopping in its time": (
        ("early_stopping.patience=2", "early_stopping.min_delta=0.02", "trainer.max_epochs=9", "scheduler.patience=1"),
        [("seed=0",), ("seed=1", "optimizer.lr=0.05"), ("seed=2", "optimizer.lr=0.0005"), ("seed=3",)],
    ),
    "ridge, momentum, classes": (
        (
            "data=iris",
            "head=categorical",
            "prior=l2",
            "optimizer=sgd",
            "optimizer.momentum=0.9",
            "trainer.max_epochs=4",
        ),
        [("prior.scale=0.3",), ("prior.scale=3", "optimizer.lr=0.01")],
    ),
    "lasso of a linear model, draws with replacement": (
        ("model=linear", "prior=l1", "batch=replacement", "trainer.max_epochs=6", "baseline=none"),
        [("seed=1", "prior.scale=0.02"), ("seed=2", "prior.scale=0.5"), ("seed=3", "prior.scale=0.02")],
    ),
    "elastic net, sgd": (
        ("model=linear", "prior=elastic_net", "optimizer=sgd", "optimizer.lr=0.02", "trainer.max_epochs=3"),
        [("seed=1", "prior.l1_scale=0.05"), ("seed=1", "prior.l2_scale=0.1")],
    ),
    "counts, full batch, cosine, decoupled decay": (
        (
            *("data=synthetic", "data.kind=poisson", "data.num_rows=200", "head=poisson", "batch=full"),
            *("optimizer=adamw", "scheduler=cosine", "trainer.max_epochs=5"),
        ),
        [("seed=1",), ("seed=2", "optimizer.lr=0.1")],
    ),
    "epochs of one step, evaluated more and more rarely": (
        ("batch=full", "data.test_fraction=0.3", "trainer.max_epochs=65", "scheduler.patience=4"),
        [("seed=1",), ("seed=2", "optimizer.lr=0.1"), ("seed=3", "optimizer.lr=0.0001")],
    ),
    "batches of hundreds of rows": (
        ("data=synthetic", "data.num_rows=1500", "batch.size=700", "trainer.max_epochs=6"),
        [("seed=1",), ("seed=2", "optimizer.lr=0.1")],
    ),
    "draws of as many rows as there are": (
        ("batch=replacement", "batch.size=200", "data=synthetic", "data.num_rows=334", "trainer.max_epochs=30"),
        [("seed=1",), ("seed=2",)],
    ),
    "coded inputs": (
        ("inputs=piecewise_linear", "trainer.max_epochs=3", "batch.size=64"),
        [("seed=1",), ("seed=2", "optimizer.lr=0.01")],
    ),
    "folds, whose rows differ in number and in the width of their code": (
        (
            *("ensemble=folds", "ensemble.members=4", "inputs=piecewise_linear", "data.test_fraction=0.3"),
            *("head=student_t", "head.scale=predicted", "trainer.max_epochs=4", "batch.size=64", "baseline=none"),
        ),
        [("seed=1", "ensemble.member=0"), ("seed=2", "ensemble.member=3")],
    ),
    "folds of classes under a lasso": (
        (
            *("ensemble=folds", "ensemble.members=3", "data=iris", "head=categorical", "prior=l1", "model=linear"),
            *("trainer.max_epochs=4", "data.split=stratified", "loss=class_weights"),
        ),
        [("seed=1", "ensemble.member=0"), ("seed=1", "ensemble.member=2", "prior.scale=0.1")],
    ),
    "folds in full batches, under a ridge": (
        (
            *("ensemble=folds", "ensemble.members=3", "head=poisson", "batch=full", "prior=l2", "data=synthetic"),
            *("data.kind=poisson", "data.num_rows=130", "trainer.max_epochs=20", "baseline=none"),
        ),
        [("seed=1", "ensemble.member=0"), ("seed=2", "ensemble.member=2", "optimizer.lr=0.1")],
    ),
    "two scales, recalibrated": (
        ("head=heteroscedastic", "calibrate=scale", "trainer.max_epochs=3", "batch.size=64"),
        [("seed=1",), ("seed=2",)],
    ),
    "dropout, and none": (
        ("model.hidden=[6,5]", "trainer.max_epochs=5", "batch.size=64"),
        [("model.dropout=0", "seed=1"), ("model.dropout=0.3",), ("model.dropout=0.6", "seed=2")],
    ),
    "dropout within folds, which differ in their number of rows": (
        (
            *("ensemble=folds", "ensemble.members=4", "data=synthetic", "data.num_rows=130", "batch.size=48"),
            *("trainer.max_epochs=4", "baseline=none"),
        ),
        [("seed=1", "ensemble.member=0", "model.dropout=0.2"), ("seed=2", "ensemble.member=3", "model.dropout=0.5")],
    ),
    "bounds of the gradient, decays, schedules": (
        ("optimizer=adamw", "trainer.max_epochs=6", "prior=none", "optimizer.lr=0.05"),
        [
            ("step.clip_norm=0", "optimizer.weight_decay=0", "scheduler.patience=0"),
            ("step.clip_norm=0.1", "optimizer.weight_decay=0.3", "scheduler.patience=1"),
            ("step.clip_norm=0.02", "scheduler.patience=0", "scheduler.factor=0.9"),
        ],
    ),
    "coupled decay with momentum": (
        ("optimizer=sgd", "optimizer.momentum=0.5", "trainer.max_epochs=4"),
        [("optimizer.weight_decay=0.1",), ("optimizer.weight_decay=0", "optimizer.lr=0.01", "step.clip_norm=0.5")],
    ),
    "smoothed labels": (
        ("loss=label_smoothing", "data=iris", "head=categorical", "trainer.max_epochs=5"),
        [("loss.amount=0",), ("loss.amount=0.1", "seed=1"), ("loss.amount=0.3", "model.dropout=0.2")],
    ),
    "focal losses": (
        ("loss=focal", "data=iris", "head=categorical", "trainer.max_epochs=3"),
        [("loss.gamma=0",), ("loss.gamma=0.5",), ("loss.gamma=2",)],
    ),
    "weighted gradients of two scales": (
        ("loss=beta_nll", "head=heteroscedastic", "trainer.max_epochs=3"),
        [("loss.beta=0",), ("loss.beta=0.5", "seed=1"), ("loss.beta=1",)],
    ),
    "images": (
        (
            "data=digits_images",
            "head=categorical",
            "model=cnn",
            "model.channels=[4,6]",
            "trainer.max_epochs=1",
            "baseline=none",
            "batch.size=256",
        ),
        [("model.dropout=0", "seed=1"), ("model.dropout=0.3", "optimizer.lr=0.01")],
    ),
    "text": (
        (
            *("data=text", "data.path=TEXT", "data.length=16", "model=transformer", "model.width=8", "model.layers=1"),
            *("model.heads=2", "trainer.max_epochs=2", "batch.size=4", "baseline=none", "scheduler=warmup_cosine"),
            # Adam would follow the rounding of gradients that are zero: those of the bias of keys.
            *("optimizer=sgd", "optimizer.momentum=0.9"),
        ),
        [("model.dropout=0", "seed=1"), ("model.dropout=0.3", "optimizer.lr=0.01"), ("model.dropout=0.1", "seed=1")],
    ),
    "binary, without validation rows": (
        ("data=breast_cancer", "head=bernoulli", "data.validation_fraction=0", "trainer.max_epochs=3", "logger=none"),
        [("seed=1",), ("seed=2", "optimizer.lr=0.01")],
    ),
}

SLOW = {
    "dropout within folds, which differ in their number of rows",
    "coupled decay with momentum",
    "focal losses",
    "weighted gradients of two scales",
}


def composed(common: tuple[str, ...], own: tuple[str, ...]) -> dict[str, Any]:
    few = FEW if not any(item.startswith("model=") for item in common) else FEW[1:]
    overrides = {item.partition("=")[0]: item for item in (*few, *common, *own)}
    return read_settings("train", list(overrides.values()), (), ())


def entries(folder: Path, common: tuple[str, ...], members: list[tuple[str, ...]]) -> list[run.Entry]:
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text("to be, or not to be: that is the question. " * 40, encoding="utf-8")
    common = tuple(item.replace("TEXT", str(folder / "text.txt")) for item in common)
    return [run.Entry(i, composed(common, own), folder / str(i), folder / f"{i}.log") for i, own in enumerate(members)]


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if name != "rows_per_s"} for row in rows]


def files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if "events.out" not in name}


def assert_close(one: Any, other: Any, place: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_close(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_close(*pair, f"{place}.{index}")
    elif isinstance(one, float) and isinstance(other, float | int):
        # Single-precision weights after some hundred steps; shares of a handful of rows move by whole rows.
        assert math.isclose(one, other, rel_tol=2e-4, abs_tol=2e-4), (place, one, other)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4, msg=lambda words: f"{place}: {words}")
    else:
        assert one == other, place


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_it_leaves_what_the_jobs_leave_alone(tmp_path: Path, name: str) -> None:
    common, members = CASES[name]
    group = entries(tmp_path / "together", common, members)
    is_asked = signature.signature(settings_of(group[0].config)) is None
    known = {signature.signature(settings_of(entry.config), is_asked) for entry in group}
    assert len(known) == 1
    assert None not in known
    assert run.run(group, tmp_path / "results.json", is_asked) == 0, [entry.log.read_text("utf-8") for entry in group]
    assert {index: code for index, (code, _) in run.read_results(tmp_path / "results.json").items()} == dict.fromkeys(
        range(len(group)), 0
    )
    lengths = set()
    for entry in group:
        solo = tmp_path / "alone" / str(entry.index)
        warning.clear()
        train.run(settings_of({**entry.config, "run_dir": str(solo)}), solo)
        assert files(entry.run_dir) == files(solo)
        assert_close(history(entry.run_dir), history(solo))
        mine, theirs = (json.loads((folder / "summary.json").read_text("utf-8")) for folder in (entry.run_dir, solo))
        lengths.add(mine["num_epochs"])
        assert mine.pop("time").keys() == theirs.pop("time").keys()
        assert_close(mine, theirs)
        for file in ("best.ckpt", "last.ckpt"):
            found, expected = (archive.read(folder / "checkpoints" / file) for folder in (entry.run_dir, solo))
            assert_close(found["state_dict"], expected["state_dict"])
            for part in ("optimizer_states", "lr_schedulers"):
                assert (part in found) == (part in expected)
                if part in found:
                    assert_close(_plain(found[part]), _plain(expected[part]))
        assert checkpoint.load(entry.run_dir).config.seed == entry.config["seed"]
    if "each stopping" in name:
        assert len(lengths) > 1


def _plain(node: Any) -> Any:
    """Without what differs by design: Lightning's wrapper notes more in a state than torch does."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items() if not str(key).startswith("_")}
    return [_plain(value) for value in node] if isinstance(node, list | tuple) else node
