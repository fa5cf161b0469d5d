"""Train, predict and evaluate with parameter uncertainty, as a user does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
import torch
from conftest import summary_of
from pyarrow import csv, parquet

from mlefw.cli import run
from mlefw.command import evaluate, predict, train
from mlefw.command.predict import in_pieces
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import EvaluationSettings, PredictionSettings
from mlefw.data.base import Block
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run import checkpoint
from mlefw.uncertainty.mc_dropout import DropoutMasks

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

EXACT = ("model=linear", "batch=full", "optimizer=lbfgs")
SMALL = ("model.hidden=[6]", "trainer.max_epochs=5")
WHOLE = ("data.test_fraction=0", "data.validation_fraction=0")


def config_of(command: str, *settings: str) -> dict[str, Any]:
    return read_settings(command, settings, [], [])


def train_on(path: Path, folder: Path, *settings: str) -> dict[str, Any]:
    common = (
        "data=csv",
        f"data.path={path}",
        "data.target=y",
        "logger=none",
        "report=false",
        "plots=false",
        "callback=none",
    )
    return train.run(settings_of({**config_of("train", *common, *settings), "run_dir": str(folder)}), folder)


def columns_of(path: Path) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in csv.read_csv(path).to_pydict().items()}


def predicted(run_dir: Path, output: Path, *settings: str) -> dict[str, np.ndarray]:
    predict.run(PredictionSettings.of(config_of("predict", f"run={run_dir}", f"output={output}", *settings)))
    return {name: np.array(values) for name, values in parquet.read_table(output).to_pydict().items()}


def test_a_linear_run_predicts_as_least_squares_does(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    summary = train_on(path, tmp_path / "r", *EXACT, *WHOLE, "uncertainty=laplace")
    assert {"weights": "last_layer", "num_parameters": 5, "rank": 5}.items() <= summary["laplace"].items()
    known = columns_of(path)
    new = {f"x{j}": np.linspace(-4, 4, 9) * (j + 1) for j in range(3)}
    csv.write_csv(pa.table(new), tmp_path / "new.csv")
    fit = sm.OLS(known["y"], sm.add_constant(np.column_stack([known[f"x{j}"] for j in range(3)]))).fit()
    frame = fit.get_prediction(sm.add_constant(np.column_stack(list(new.values())))).summary_frame(alpha=0.2)
    settings = (f"data.path={tmp_path / 'new.csv'}", "level=0.8", "uncertainty=laplace")
    ours = predicted(tmp_path / "r", tmp_path / "p.parquet", *settings)
    for name, theirs in (("mean", "mean"), ("lower", "obs_ci_lower"), ("upper", "obs_ci_upper")):
        np.testing.assert_allclose(ours[name], frame[theirs], rtol=1e-6)
    plain = predicted(tmp_path / "r", tmp_path / "q.parquet", f"data.path={tmp_path / 'new.csv'}", "level=0.8")
    assert (plain["upper"] - plain["lower"] < ours["upper"] - ours["lower"]).all()


@pytest.mark.parametrize("head", ["gaussian", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson"])
@pytest.mark.parametrize("weights", ["last_layer", "full"])
def test_every_head(head: str, weights: str, tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian" if head == "heteroscedastic" else head)
    chosen = ("uncertainty=laplace", f"uncertainty.weights={weights}")
    summary = train_on(path, tmp_path / "r", f"head={head}", *SMALL, "prior=l2", *chosen)
    assert "warnings" not in summary or not summary["warnings"]
    state = torch.load(tmp_path / "r/checkpoints/best.ckpt", weights_only=True)
    assert state["posterior"]["root"].dtype == torch.float64
    output = tmp_path / "scores.json"
    content = evaluate.run(EvaluationSettings.of(config_of("evaluate", f"run={tmp_path / 'r'}", f"output={output}")))
    assert content["metrics"]["nll_nats"] == pytest.approx(summary["metrics"]["test"]["nll_nats"], rel=1e-9)
    assert content["laplace"]["nll_nats"] == pytest.approx(summary["laplace"]["test"]["nll_nats"], rel=1e-9)
    assert content["laplace"]["nll_nats"] != content["metrics"]["nll_nats"]
    if "width_90" in content["metrics"]:
        assert content["laplace"]["width_90"] > content["metrics"]["width_90"]
    assert json.loads(output.read_text(encoding="utf-8"))["laplace"] == content["laplace"]
    columns = predicted(tmp_path / "r", tmp_path / "p.parquet", "uncertainty=laplace")
    assert columns["nll_nats"].mean() == pytest.approx(content["laplace"]["nll_nats"], rel=1e-9)
    assert all(np.isfinite(values).all() for values in columns.values() if values.dtype.kind == "f")
    if head == "categorical":
        assert sum(columns[f"prob_{k}"] for k in ("low", "middle", "high")) == pytest.approx(1, rel=1e-12)


def test_a_run_without_it_reads_its_own_rows_again(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("poisson")
    kept = train_on(path, tmp_path / "a", "head=poisson", *SMALL, "uncertainty=laplace")
    train_on(path, tmp_path / "b", "head=poisson", *SMALL)
    assert "laplace" not in evaluate.run(EvaluationSettings.of(config_of("evaluate", f"run={tmp_path / 'b'}")))
    found = evaluate.run(EvaluationSettings.of(config_of("evaluate", f"run={tmp_path / 'b'}", "uncertainty=laplace")))
    assert found["laplace"]["nll_nats"] == pytest.approx(kept["laplace"]["test"]["nll_nats"], rel=1e-9)
    first = columns_of(path)
    csv.write_csv(pa.table({name: values * 1.001 if name == "x0" else values for name, values in first.items()}), path)
    with pytest.raises(UsageError, match="no longer those of its training"):
        evaluate.run(EvaluationSettings.of(config_of("evaluate", f"run={tmp_path / 'b'}", "uncertainty=laplace")))
    path.unlink()
    with pytest.raises(UsageError, match="mlefw train uncertainty=laplace"):
        predicted(tmp_path / "b", tmp_path / "p.parquet", "uncertainty=laplace")
    checkpoint.load(tmp_path / "a")


def test_mistakes_end_before_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["train", "uncertainty=laplace", f"run_dir={tmp_path / 'r'}"]
    assert run([*common, "prior=l1"]) == 2
    assert "expected prior=l2 or prior=none" in capfd.readouterr().err
    assert run([*common, "uncertainty.weights=full", "model.hidden=[80,80]"]) == 2
    assert "expected uncertainty.weights=last_layer" in capfd.readouterr().err
    assert run([*common, "uncertainty.weights=all"]) == 2
    assert "last_layer | full or null" in capfd.readouterr().err
    assert run([*common, "calibrate=scale"]) == 2
    assert "expected calibrate=none or uncertainty=none" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_training_that_leaves_too_few_rows_is_finished_with_a_warning(
    tmp_path: Path, table: Callable[..., Path]
) -> None:
    path = table("gaussian", num_rows=40)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        summary = train_on(path, tmp_path / "r", "trainer.max_epochs=2", "uncertainty=laplace")
    assert summary["status"] == "finished"
    assert "laplace" not in summary
    assert summary_of(tmp_path / "r")["metrics"] == summary["metrics"]


def test_the_console_shows_both(tmp_path: Path, table: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    train_on(table("bernoulli"), tmp_path / "r", "head=bernoulli", *SMALL, "uncertainty=laplace")
    capfd.readouterr()
    assert run(["evaluate", f"run={tmp_path / 'r'}"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].split() == ["as", "fitted", "laplace"]
    assert len(next(line for line in lines if "nll_nats" in line).split()) == 3
    assert len(next(line for line in lines if "accuracy" in line).split()) == 2


def test_a_recalibrated_run_has_no_average(tmp_path: Path, table: Callable[..., Path]) -> None:
    train_on(table("gaussian"), tmp_path / "r", *SMALL, "calibrate=scale")
    with pytest.raises(UsageError, match="holds a recalibration"):
        predicted(tmp_path / "r", tmp_path / "p.parquet", "uncertainty=laplace")


def test_many_rows_some_without_a_target(tmp_path: Path, table: Callable[..., Path]) -> None:
    train_on(table("poisson"), tmp_path / "r", "head=poisson", *SMALL, "uncertainty=laplace")
    x = np.random.default_rng(0).normal(size=(3, 5000))
    y = [None if k % 2 else float(k % 5) for k in range(5000)]
    columns = {f"x{j}": x[j] for j in range(3)} | {"y": y}
    csv.write_csv(pa.table(columns), tmp_path / "many.csv")
    csv.write_csv(pa.table(columns).slice(4990), tmp_path / "few.csv")
    settings = ("uncertainty=laplace", "data.missing=impute", "quantiles=[0.3]")
    many = predicted(tmp_path / "r", tmp_path / "p.parquet", f"data.path={tmp_path / 'many.csv'}", *settings)
    few = predicted(tmp_path / "r", tmp_path / "q.parquet", f"data.path={tmp_path / 'few.csv'}", *settings)
    assert many["row"].tolist() == list(range(5000))
    assert [value is None for value in many["nll_nats"]] == [value is None for value in y]
    # The network computes in float32, and rounds otherwise in a block of another size.
    for name in few.keys() - {"row", "nll_nats"}:
        np.testing.assert_allclose(many[name][4990:], few[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(many["nll_nats"][4990::2].astype(float), few["nll_nats"][::2].astype(float), rtol=1e-6)


def test_blocks_are_read_in_pieces_where_an_average_takes_long() -> None:
    tables = [Table({"x": np.arange(600.0)}, "a table", 2), Table({"x": np.arange(10.0)}, "a table", 602)]
    blocks = [Block(tables[0], np.arange(600), 0.9), Block(tables[1], 600 + np.arange(10), 1.0)]
    pieces = list(in_pieces(blocks, DropoutMasks(3, 0)))
    assert max(piece.table.num_rows for piece in pieces) < 300
    assert np.concatenate([piece.row for piece in pieces]).tolist() == list(range(610))
    assert np.concatenate([piece.table.columns["x"] for piece in pieces]).tolist() == [*range(600), *range(10)]
    shares = [piece.share for piece in pieces]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0
    assert list(in_pieces(blocks, None)) == blocks
