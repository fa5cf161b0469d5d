"""Exported files in torch's own format, which needs no more packages: every head, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from conftest import Run
from exported_heads import HEADS, LABELS, QUANTILES, REFUSED, trained_of

import mlefw
from mlefw.calibrate.conformal import Conformal
from mlefw.cli import run
from mlefw.configuration.settings import TableSettings
from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.run import export
from mlefw.run.export_schema import described
from mlefw.run.exported import lgamma, solve_triangular
from mlefw.run.new_data import read_blocks
from mlefw.score.recalibration import recalibrated

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def outputs(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the file gives, with torch alone."""
    module = torch.export.load(path).module()
    found = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_exported_or_refused(name: str, tmp_path: Path) -> None:
    trained, table = trained_of(name)
    quantiles = [] if name in LABELS else [0.05, 0.5]
    path = tmp_path / "model.pt2"
    if name not in QUANTILES and name not in LABELS:
        with pytest.raises(UsageError, match=REFUSED.get(name, "have no closed form")):
            export.export(trained, table, path, "torch_export", quantiles)
        assert not list(tmp_path.iterdir())
        quantiles = []
    if name in REFUSED:
        return
    export.export(trained, table, path, "torch_export", quantiles)
    about = json.loads(export.schema_path(path).read_text(encoding="utf-8"))
    rows = trained.rows(table, target_required=False)
    columns = {"exposure": "t", "offset": "o", "trials": "m"}
    given = {"x": rows.x} | {one: torch.from_numpy(table.columns[column]) for one, column in columns.items()}
    named = [one["name"] for one in about["inputs"]]
    # Another number of rows than were there at the export.
    found = outputs(path, {one: given[one][:7].numpy() for one in named})
    assert list(found) == [one["name"] for one in about["outputs"]]
    with torch.no_grad():
        eta = trained.objective.head.complete(trained.objective.eta(rows.x, rows.offset))
    np.testing.assert_allclose(found["eta"], eta[:7], rtol=1e-12, atol=1e-12)
    assert about["eta"] == [*trained.objective.head.eta_names, *trained.objective.head.shared_names]


CONFORMAL = ("gaussian", "lognormal", "gamma", "quantiles")
"""Heads with quantiles of each form in which they are exported."""


@pytest.mark.parametrize("name", CONFORMAL)
def test_conformal_quantiles_are_those_of_the_density_at_ranks_of_held_out_rows(name: str, tmp_path: Path) -> None:
    plain, table = trained_of(name)
    density, calibration = plain.objective.head, Conformal()
    pit = np.random.default_rng(2).permutation(np.linspace(0.01, 0.98, 39) ** 1.3)
    masses = {"below": torch.from_numpy(pit), "above": torch.from_numpy(1 - pit)}
    calibration.restore(masses | {"count": torch.ones(39, dtype=torch.float64)})
    trained = replace(plain, objective=recalibrated(plain.objective, calibration), calibration=calibration)
    path = tmp_path / "model.pt2"
    refused = pytest.raises(
        UsageError, match=r"quantiles=\[0.01\]: these conformal quantiles have no finite end, by 39"
    )
    with pytest.warns(UserWarning, match="can promise no level above 0.975"), refused:
        export.export(trained, table, path, "torch_export", [0.01, 0.2])
    export.export(trained, table, path, "torch_export", [0.05, 0.8])
    rows = trained.rows(table, target_required=False)
    column = "t" if density.log_link else "o"
    given = {"exposure" if density.log_link else "offset": table.columns[column]}
    found = outputs(path, {"x": rows.x.numpy(), **given})
    # Of 39 rows, two may be below the quantile at 0.05, and eight above that at 0.8.
    with torch.no_grad():
        predicted = density(plain.objective.eta(rows.x, rows.offset))
    for at, level in ((0.05, np.sort(pit)[1]), (0.8, np.sort(pit)[-8])):
        expected = quantile.quantile(predicted, float(level))
        np.testing.assert_allclose(found[f"quantile_{at:g}"], expected, rtol=1e-6)
    about = json.loads(export.schema_path(path).read_text(encoding="utf-8"))
    meanings = {one["name"]: one["meaning"] for one in about["outputs"]}
    assert meanings["quantile_0.8"] == "conformal quantile of the target at 0.8"
    np.testing.assert_allclose(found["eta"], density.complete(plain.objective.eta(rows.x, rows.offset)).detach())


def test_cells_that_are_missing_are_those_of_a_csv_file(tmp_path: Path) -> None:
    """Each text that the description calls missing is coded as missing, and a word of a category is a level."""
    random = np.random.default_rng(0)
    table = {"u": random.normal(size=60).round(3).astype(str), "g": random.choice(["x", "NA", "z"], 60)}
    table["u"][:9], table["g"][:5] = "", ""
    lines = [f"{u},{g},{k % 7}" for k, (u, g) in enumerate(zip(*table.values(), strict=True))]
    (tmp_path / "d.csv").write_text("\n".join(["u,g,y", *lines]))
    source = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "data.missing=impute")
    settings = ("model=linear", *(one for one in SMALL if "model" not in one), f"run_dir={tmp_path / 'r'}")
    assert run(["train", *source, *settings]) == 0
    trained = mlefw.load(tmp_path / "r")._trained
    features = {one["name"]: one for one in described(trained, {}, {}, {})["features"]}
    assert features["g"]["levels"] == ["NA", "x", "z"]
    for name, other in (("u", "x"), ("g", "0.5")):
        cells = features[name]["missing_cells"]
        rows = [f"{cell},{other}" if name == "u" else f"{other},{cell}" for cell in cells]
        (tmp_path / "new.csv").write_text("\n".join(["u,g", *rows, "0.25,NA"]))
        blocks = read_blocks(trained, TableSettings(path=str(tmp_path / "new.csv")))
        x = torch.cat([trained.rows(block.table, target_required=False).x for block in blocks])
        indicator = x[:, trained.schema.names.index(features[name]["columns"][-1])]
        assert indicator.tolist() == [1.0] * len(cells) + [0.0]


SMALL = ("trainer.max_epochs=3", "model.hidden=[8]", "baseline=none", "report=false", "plots=false", "logger=none")


def frame(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    u, g = random.normal(size=num_rows), random.choice(["x", "y", "z"], num_rows)
    return {"u": u, "g": g, "y": 3 + u + (g == "y") + random.normal(size=num_rows)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recalibrated model of a number and a category, on clipped features."""
    settings = ("calibrate=scale", "inputs=clipped", "head=heteroscedastic", *SMALL)
    return mlefw.fit(frame(300), "y", *settings, run_dir=tmp_path_factory.mktemp("runs") / "r")


def test_the_file_and_its_description_are_enough(model: Any, tmp_path: Path) -> None:
    """Rows are coded by what the description says, and the outputs are those of predict, recalibration included."""
    path = model.export(tmp_path / "m.pt2", frame(50), "torch_export", quantiles=[0.05, 0.95])
    about, new = json.loads(path.with_name("m.pt2.json").read_text(encoding="utf-8")), frame(20, 1)
    x = []
    for one in about["features"]:
        if one["kind"] == "numeric":
            x.append(new[one["name"]])
        else:
            x += [(new[one["name"]] == level).astype(float) for level in one["levels"] if level != one["reference"]]
    found = outputs(path, {"x": np.stack(x, 1)})
    expected = model.predict(new, quantiles=[0.05, 0.95])
    for name in ("mean", "quantile_0.05", "quantile_0.95"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    np.testing.assert_allclose(found["scale"], expected["sd"], rtol=1e-4)
    np.testing.assert_allclose(outputs(path, {"x": np.stack(x, 1)[:1]})["mean"], expected["mean"][:1], rtol=1e-4)


def test_what_is_refused_leaves_nothing(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"format=pickle: expected onnx or torch_export"):
        model.export(tmp_path / "m.pt2", frame(5), "pickle")
    with pytest.raises(UsageError, match=r"quantiles: 1.5 is not a probability"):
        model.export(tmp_path / "m.pt2", frame(5), "torch_export", quantiles=[1.5])
    with pytest.raises(UsageError, match="there is no directory"):
        model.export(tmp_path / "none" / "m.pt2", frame(5), "torch_export")
    several = mlefw.load([model.path, model.path])
    with pytest.raises(UsageError, match="an ensemble, or a mixture of several runs, is not exported"):
        several.export(tmp_path / "m.pt2", frame(5), "torch_export")
    with monkeypatch.context() as patch:
        # A file that is off by a thousandth, as a wrong translation would be.
        right = export._torch_export

        def wrong(program: Any, inputs: Any) -> Any:
            content, call = right(program, inputs)
            return content, lambda arrays: {name: 1.001 * value for name, value in call(arrays).items()}

        patch.setattr(export, "_torch_export", wrong)
        with pytest.raises(UsageError, match="differs from the model"):
            model.export(tmp_path / "m.pt2", frame(5), "torch_export")
    assert not list(tmp_path.iterdir())
    (tmp_path / "m.pt2").write_text("mine")
    with pytest.raises(UsageError, match="overwrite=true"):
        model.export(tmp_path / "m.pt2", frame(5), "torch_export")


def test_the_command_writes_beside_the_run(mlefw: Run, tmp_path: Path) -> None:
    few = [one for one in SMALL if not one.startswith("model")]
    linear = ("model=linear", "batch=full", "optimizer=lbfgs", "formula=progression ~ bmi + bp")
    done = mlefw("train", *linear, *few, "run_dir=r")
    assert done.returncode == 0, done.stderr
    done = mlefw("export", "run=r", "format=torch_export", "quantiles=[0.1]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"written: {tmp_path / 'r' / 'model.pt2'} (")
    about = json.loads((tmp_path / "r" / "model.pt2.json").read_text(encoding="utf-8"))
    assert about["columns"] == ["bmi", "bp"]
    assert about["checked"]["allowed"] == 1e-6
    assert mlefw("export", "run=r", "format=torch_export").returncode == 2
    assert mlefw("export").returncode == 2
    done = mlefw("export", "run=[r,r]", "format=torch_export", "path=both.pt2")
    assert done.returncode == 2
    assert "an ensemble, or a mixture of several runs, is not exported" in done.stderr


@pytest.mark.slow
def test_a_formula_with_an_offset_is_refused(mlefw: Run) -> None:
    few = [one for one in SMALL if not one.startswith("model")]
    formula = ("model=linear", "formula=progression ~ bmi + offset(bp)")
    done = mlefw("train", *formula, *few, "run_dir=o")
    assert done.returncode == 0, done.stderr
    done = mlefw("export", "run=o", "format=torch_export")
    assert done.returncode == 2
    assert "a formula with an offset is not exported" in done.stderr


def test_the_logarithm_of_the_gamma_function() -> None:
    x = torch.logspace(-8, 8, 400, dtype=torch.float64)
    np.testing.assert_allclose(lgamma(x), scipy.special.gammaln(x.numpy()), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
def test_triangular_systems_for_onnx_are_those_of_lapack(upper: bool, left: bool, unitriangular: bool) -> None:
    random = np.random.default_rng(0)
    a, b = torch.from_numpy(random.normal(size=(5, 4, 4))), torch.from_numpy(random.normal(size=(5, 4, 4)))
    a = (a.triu() if upper else a.tril()) + 3 * torch.eye(4)
    found = solve_triangular(a, b, upper=upper, left=left, unitriangular=unitriangular)
    for matrix, right, solved in zip(a.numpy(), b.numpy(), found.numpy(), strict=True):
        # x a = b is a' x' = b'.
        matrix, right, solved = (matrix, right, solved) if left else (matrix.T, right.T, solved.T)
        expected = scipy.linalg.solve_triangular(matrix, right, lower=upper != left, unit_diagonal=unitriangular)
        np.testing.assert_allclose(solved, expected, rtol=1e-12)
