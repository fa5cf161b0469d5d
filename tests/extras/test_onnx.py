"""Exported ONNX files in onnxruntime: every head, model, recalibration and input map, beside what predict gives."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ROOT
from exported_heads import HEADS, LABELS, QUANTILES, REFUSED, trained_of

import mlefw
from mlefw.errors import UsageError
from mlefw.run import export

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SMALL = ("trainer.max_epochs=3", "baseline=none", "report=false", "plots=false", "logger=none")


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def outputs(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the file gives in onnxruntime, by the names that its description has."""
    about = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    program = session(path)
    assert [one.name for one in program.get_inputs()] == [one["name"] for one in about["inputs"]] == list(inputs)
    names = [one.name for one in program.get_outputs()]
    assert names == [one["name"] for one in about["outputs"]]
    found = dict(zip(names, program.run(None, dict(inputs)), strict=True))
    assert {name: value.dtype.name for name, value in found.items()} == {
        one["name"]: one["type"] for one in about["outputs"]
    }
    return found


@pytest.mark.parametrize("name", [name for name in HEADS if name not in REFUSED])
def test_every_head(name: str, tmp_path: Path) -> None:
    trained, table = trained_of(name)
    quantiles = [0.05, 0.5] if name in QUANTILES else []
    path = tmp_path / "model.onnx"
    export.export(trained, table, path, "onnx", quantiles)
    rows = trained.rows(table, target_required=False)
    columns = {"exposure": "t", "offset": "o", "trials": "m"}
    given = {"x": rows.x.numpy()} | {one: table.columns[column] for one, column in columns.items()}
    named = [one.name for one in session(path).get_inputs()]
    with torch.no_grad():
        eta = trained.objective.eta(rows.x, rows.offset)
        predicted = trained.objective.head(eta)
    for rows_at_once in (1, 7):
        found = outputs(path, {one: given[one][:rows_at_once] for one in named})
        assert all(np.isfinite(value).any() for value in found.values())
        expected = trained.objective.head.complete(eta)[:rows_at_once].detach()
        np.testing.assert_allclose(found["eta"], expected, rtol=1e-9, atol=1e-9)
        if name in LABELS and name != "bernoulli":
            np.testing.assert_allclose(found["probs"], predicted.probs[:rows_at_once].detach(), rtol=1e-6)


def frame(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    u, g = random.normal(size=num_rows), random.choice(["x", "y", "z"], num_rows)
    eta = 0.5 * u + (g == "y")
    return {
        "u": u,
        "g": g,
        "number": 3 + eta + random.normal(size=num_rows),
        "count": random.poisson(np.exp(eta)).astype(float),
        "two": np.where(random.random(num_rows) < 1 / (1 + np.exp(-eta)), "yes", "no"),
        "three": np.where(eta + random.normal(size=num_rows) > 0.8, "hi", np.where(eta > 0, "mid", "lo")),
    }


def coded(path: Path, new: Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns of rows as the description of a file says, without mlefw."""
    about, x = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8")), []
    for one in about["features"]:
        if one["kind"] == "numeric":
            x.append(new[one["name"]])
        else:
            x += [(new[one["name"]] == level).astype(float) for level in one["levels"] if level != one["reference"]]
    return np.stack(x, 1)


TABLES = {
    "linear in 64 bit": ("number", ("model=linear", "batch=full", "optimizer=lbfgs"), 1e-6),
    "mlp": ("number", ("head=heteroscedastic", "model.hidden=[8,8]", "model.layer_norm=true"), 1e-4),
    "gelu": ("number", ("model.activation=gelu", "model.hidden=[8]"), 1e-4),
    "elu": ("number", ("model.activation=elu", "model.hidden=[8]"), 1e-4),
    "tanh and relu": ("count", ("head=poisson", "model.activation=tanh", "model.hidden=[8]"), 1e-4),
    "residual": ("number", ("model=residual", "model.hidden=[8]", "baseline=linear"), 1e-4),
    "clipped": ("number", ("inputs=clipped", "model.hidden=[8]"), 1e-4),
    "soft clipped": ("number", ("inputs=clipped", "inputs.soft=true", "model.hidden=[8]"), 1e-4),
    "piecewise linear": ("number", ("inputs=piecewise_linear", "model.hidden=[8]"), 1e-4),
    "auto": ("number", ("inputs=auto", "model.hidden=[8]"), 1e-4),
    "scale": ("number", ("calibrate=scale", "head=student_t", "model.hidden=[8]"), 1e-4),
    "conformal": ("number", ("calibrate=conformal", "head=quantiles", "model.hidden=[8]"), 1e-4),
    "cox": ("two", ("calibrate=cox", "head=bernoulli", "model.hidden=[8]"), 1e-4),
    "isotonic": ("two", ("calibrate=isotonic", "calibrate.min_rows=10", "head=bernoulli", "model.hidden=[8]"), 1e-4),
    "temperature": ("three", ("calibrate=temperature", "head=categorical", "model.hidden=[8]"), 1e-4),
    "histogram": ("number", ("calibrate=temperature", "head=histogram", "model.hidden=[8]"), 1e-4),
}
"""Runs on a table: the target, the settings, and how close the file has to be."""


@pytest.mark.parametrize("case", TABLES)
def test_runs_on_a_table(case: str, tmp_path: Path) -> None:
    target, settings, close = TABLES[case]
    train = {name: value for name, value in frame(400).items() if name in ("u", "g", target)}
    given = [one for one in SMALL if not (one.startswith("baseline") and "baseline=linear" in settings)]
    model = mlefw.fit(train, target, *given, *settings, run_dir=tmp_path / "r")
    quantiles = [0.05, 0.95] if target == "number" else []
    path = model.export(tmp_path / "m.onnx", frame(60, 2), "onnx", quantiles)
    new = frame(30, 1)
    expected = model.predict(new, quantiles=quantiles)
    for rows in (30, 1):
        found = outputs(path, {"x": coded(path, new)[:rows]})
        for name, value in found.items():
            if name == "probs":
                about = json.loads(path.with_name("m.onnx.json").read_text(encoding="utf-8"))
                for k, label in enumerate(about["targets"][0]["labels"]):
                    np.testing.assert_allclose(value[:, k], expected[f"prob_{label}"][:rows], rtol=close, atol=close)
            elif name in expected:
                np.testing.assert_allclose(value, expected[name][:rows], rtol=close, atol=close)
        assert {"probs"} <= set(found) or {"mean", *(f"quantile_{p}" for p in quantiles)} <= set(found)


def test_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (120, 2, 6, 6)).astype(np.uint8), random.integers(0, 3, 120)
    settings = ("model=cnn", "model.channels=[4,8]", "head=categorical", *SMALL)
    model = mlefw.fit(images, labels, *settings, run_dir=tmp_path / "r")
    path = model.export(tmp_path / "m.onnx", images[:20])
    found, expected = outputs(path, {"x": images[20:51]})["probs"], model.predict(images[20:51])
    np.testing.assert_allclose(found, np.stack([expected[f"prob_{k}"] for k in range(3)], 1), rtol=1e-4, atol=1e-6)


def test_ids_and_text(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    few = ("model=transformer", "model.width=8", "model.heads=2", "model.layers=1", *SMALL)
    ids, y = random.integers(0, 9, (120, 6)), random.normal(size=120)
    model = mlefw.fit(ids, y, *few, "data.vocabulary=9", run_dir=tmp_path / "ids")
    path = model.export(tmp_path / "ids.onnx", ids[:20], quantiles=[0.1])
    found, expected = outputs(path, {"x": ids[30:71]}), model.predict(ids[30:71], quantiles=[0.1])
    for name in ("mean", "quantile_0.1"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
    text = "".join(random.choice(list("abcd"), 800))
    model = mlefw.fit(text, None, *few, "data.length=8", run_dir=tmp_path / "text")
    path = model.export(tmp_path / "text.onnx", text[:200])
    about = json.loads((tmp_path / "text.onnx.json").read_text(encoding="utf-8"))
    x = np.array([[about["alphabet"].index(ord(one)) for one in text[k : k + 8]] for k in range(5)])
    found = outputs(path, {"x": x})["probs"]
    with torch.no_grad():
        objective = model._trained.objective
        expected = objective.head(objective.eta(torch.from_numpy(x), torch.zeros(5, 8).double())).probs
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_onnx_has_no_function_for_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(export._WITHOUT, torch.ops.aten.linalg_solve_triangular.default)
    trained, table = trained_of("multivariate_gaussian")
    with pytest.raises(UsageError, match=r"MultivariateGaussianHead behind Mlp\): .*linalg_solve_triangular"):
        export.export(trained, table, tmp_path / "model.onnx", "onnx", [0.05])
    assert not list(tmp_path.iterdir())


def test_a_format_whose_packages_are_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"needs the packages onnxscript"):
        export.check_format("onnx")


def test_the_board_is_read_beside_these_packages(tmp_path: Path) -> None:
    """TensorBoard and ONNX read the messages of the same library."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = [one for one in SMALL if not one.startswith("logger")]
    mlefw.fit({"u": np.arange(50.0), "y": np.arange(50.0) % 7}, "y", *settings, run_dir=tmp_path / "r")
    board = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"]


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.S)
    random = np.random.default_rng(0)
    region = random.choice(["east", "north", "south"], 200)
    rows = {"age": random.uniform(20, 80, 200), "region": region}
    y = rows["age"] / 10 + (region == "south") + random.normal(size=200)
    model = mlefw.fit({**rows, "y": y}, "y", *SMALL, run_dir=tmp_path / "r")
    model.export(tmp_path / "model.onnx", rows, quantiles=[0.05, 0.95])
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(code, space)
    new = {name: np.array(values) for name, values in space["rows"].items()}
    expected = model.predict(new, quantiles=[0.05, 0.95])
    for name in ("mean", "quantile_0.05", "quantile_0.95"):
        np.testing.assert_allclose(space["found"][name], expected[name], rtol=1e-4)
