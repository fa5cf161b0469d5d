"""A trained run in Python and on the command line: what it predicts, and what does not change a prediction."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from scipy import stats

from mlefw.cli import run
from mlefw.configuration.groups import members
from mlefw.errors import UsageError
from mlefw.reading import csv_blocks
from mlefw.trained import load

HEADS = [
    name
    for name in members("head")
    if name in ("gaussian", "gaussian_fixed", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson")
]


def frame(head: str = "gaussian", num_rows: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(5)
    x = random.normal(size=(num_rows, 2))
    kind = random.choice(["a", "b", "c"], num_rows)
    eta = 0.4 * x[:, 0] - 0.3 * x[:, 1] + 0.5 * (kind == "b")
    y: Any = eta + random.normal(size=num_rows)
    if head == "bernoulli":
        y = (random.random(num_rows) < 1 / (1 + np.exp(-eta))).astype(int)
    elif head == "categorical":
        y = np.array(["low", "middle", "=high"])[random.integers(0, 3, num_rows)]
    elif head == "poisson":
        y = random.poisson(np.exp(eta))
    return pd.DataFrame({"x": x[:, 0], "kind": kind, "z": x[:, 1], "key": np.arange(num_rows) * 3, "y": y})


def fit(folder: Path, rows: pd.DataFrame, head: str = "gaussian", *settings: str, name: str = "r") -> Path:
    rows.to_csv(folder / f"{name}.csv", index=False)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        given = (
            "data=csv",
            f"data.path={folder / name}.csv",
            "data.target=y",
            "data.id=key",
            f"run_dir={folder / name}",
        )
        few = (
            "trainer.max_epochs=3",
            "trainer.precision=64",
            "logger=none",
            "report=false",
            "plots=false",
            "model.hidden=[4]",
        )
        few = few[:-1] if any(s.startswith("model=") for s in settings) else few
        assert run(["train", f"head={head}", *given, *few, *settings]) == 0
    return folder / name


def predicted(folder: Path, model: Path, *settings: str, output: str = "p.parquet") -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        assert run(["predict", f"run={model}", f"output={folder / output}", "overwrite=true", *settings]) == 0
    if output.endswith("csv"):
        return csv.read_csv(folder / output).to_pandas()
    return parquet.read_table(folder / output).to_pandas()


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left.reset_index(drop=True), right.reset_index(drop=True), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_invariances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    """Column order, one block or many, one by one, and a frame instead of a file do not change a prediction."""
    rows = frame(head)
    settings = ["head.scale=1.5"] if head == "gaussian_fixed" else []
    folder = fit(tmp_path, rows, head, *settings)
    model = load(folder)
    whole = model.predict(rows)
    assert len(whole) == 90
    assert whole["nll_nats"].notna().all()
    same(model.predict(rows[["y", "key", "z", "kind", "x"]]), whole)
    same(pd.concat([model.predict(rows[k : k + 1]) for k in range(90)]), whole)
    monkeypatch.setattr("mlefw.run.from_memory.BLOCK_ROWS", 7)
    same(model.predict(rows), whole)
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (500,))
    file = predicted(tmp_path, folder, f"data.path={tmp_path}/r.csv")
    assert file["row"].tolist() == list(range(90))
    same(file.drop(columns="row"), whole)
    unknown = model.predict(rows.drop(columns="y"))
    same(unknown, whole.drop(columns="nll_nats"))
    if rows["y"].dtype.kind == "i":
        same(model.predict(rows.astype({"y": float})), whole)
    blank = rows.astype({"y": object})
    blank.loc[3, "y"] = None
    some = model.predict(blank)
    assert some["nll_nats"].isna().tolist() == [k == 3 for k in range(90)]
    same(some.drop(index=3), whole.drop(index=3))


@pytest.mark.parametrize("head", HEADS)
def test_weight_two_is_the_row_twice(tmp_path: Path, head: str) -> None:
    rows = frame(head)
    weight = np.arange(90) % 3
    linear = ("model=linear", "batch=full", "data.test_fraction=0", "data.validation_fraction=0", "prior=l2")
    linear += ("head.scale=1.5",) if head == "gaussian_fixed" else ()
    one = fit(tmp_path, rows.assign(w=weight), head, *linear, "data.weight=w", name="one")
    two = fit(tmp_path, rows.loc[rows.index.repeat(weight)], head, *linear, name="two")
    left, right = (json.loads((path / "baseline.json").read_text(encoding="utf-8")) for path in (one, two))
    assert left["nll_nats"] == pytest.approx(right["nll_nats"], rel=1e-8)
    pairs = zip(left["coefficients"].values(), right["coefficients"].values(), strict=True)
    for a, b in ((x, y) for many in pairs for x, y in zip(*many, strict=True)):
        assert a["estimate"] == pytest.approx(b["estimate"], rel=1e-6, abs=1e-8)
    weighted = load(one).evaluate(rows.assign(w=weight))
    repeated = rows.loc[rows.index.repeat(weight)].assign(w=1)
    assert load(one).evaluate(repeated)["nll_nats"] == pytest.approx(weighted["nll_nats"], rel=1e-12)


def test_frames_of_every_kind(tmp_path: Path) -> None:
    rows = frame()
    model = load(fit(tmp_path, rows[["x", "z", "key", "y"]]))
    assert (model.features, model.target) == (["x", "z"], "y")
    expected = model.predict(rows.set_index("key", drop=False), quantiles=[0.1])
    assert expected.index.tolist() == rows["key"].tolist()
    half = stats.norm.ppf(0.95) * expected["sd"]
    assert np.allclose(expected["upper"] - expected["mean"], half, rtol=1e-12)
    assert np.allclose(expected["quantile_0.1"], stats.norm.ppf(0.1, expected["mean"], expected["sd"]), rtol=1e-12)
    assert np.allclose(
        expected["nll_nats"], -stats.norm.logpdf(rows["y"], expected["mean"], expected["sd"]), rtol=1e-12
    )
    table = model.predict(pa.Table.from_pandas(rows), quantiles=[0.1])
    assert isinstance(table, pa.Table)
    same(table.to_pandas().drop(columns="row"), expected)
    arrays = model.predict({name: rows[name].to_numpy() for name in rows}, quantiles=[0.1])
    matrix = model.predict(rows[["x", "z"]].to_numpy(np.float32), quantiles=[0.1])
    for name in ("mean", "lower", "quantile_0.1"):
        assert np.allclose(arrays[name], expected[name], rtol=1e-12)
        assert np.allclose(matrix[name], expected[name], rtol=1e-5)
    assert np.allclose(model.distribution(rows).mean.numpy(), expected["mean"], rtol=1e-12)
    assert model.evaluate(rows)["nll_nats"] == pytest.approx(expected["nll_nats"].mean(), rel=1e-12)


def test_a_frame_of_polars(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    rows = frame()
    model = load(fit(tmp_path, rows))
    found = model.predict(polars.from_pandas(rows))
    assert isinstance(found, polars.DataFrame)
    same(found.to_pandas().drop(columns="row"), model.predict(rows))


def test_what_a_frame_is_told(tmp_path: Path) -> None:
    rows = frame("poisson")
    model = load(fit(tmp_path, rows, "poisson"))
    cases: list[tuple[Any, str]] = [
        (rows.drop(columns="z"), r"lacks these columns\n  'z'"),
        (rows.assign(z="much"), r"'z' \(a numeric feature\) holds text\n  rows 0, 1.*'much'"),
        (rows.assign(kind="d"), r"(?s)'kind' .*data.unseen=reference"),
        (rows.assign(x=np.nan), r"(?s)'x': 90, rows 0, 1.*data.missing=impute"),
        (rows.assign(y=-1), r"'y' has values that PoissonHead cannot take\n  rows 0, 1"),
        (rows[["x", "z"]].to_numpy(), r"shape \(90, 2\)"),
        (rows.assign(x=pd.Timestamp("2020-01-01")), r"'x' holds timestamp"),
        ("a text", r"cannot be read"),
    ]
    for data, words in cases:
        with pytest.raises(UsageError, match=words):
            model.predict(data)
    for level, quantiles, words in ((0, [], "level=0"), (0.9, [1.0], "quantiles: 1.0"), (True, [], "level=True")):
        with pytest.raises(UsageError, match=words):
            model.predict(rows, level, quantiles)
    with pytest.raises(UsageError, match="'y'"):
        model.evaluate(rows.drop(columns="y"))
    with pytest.raises(UsageError, match=r"data.unseen='zero'"):
        load(tmp_path / "r", unseen="zero")


def test_unseen_levels(tmp_path: Path) -> None:
    rows = frame()
    all_rows = ("data.test_fraction=0", "data.validation_fraction=0")
    folder = fit(tmp_path, rows, "gaussian", "model=linear", *all_rows)
    new = rows.assign(kind="d")
    with pytest.warns(UserWarning, match=r"'kind' holds levels that the training data do not: 'd'; rows 0, 1"):
        found = load(folder, unseen="reference").predict(new)
    each = {level: load(folder).predict(rows.assign(kind=level))["mean"] for level in "abc"}
    assert np.allclose(found["mean"], each["a"], rtol=1e-12)
    with pytest.warns(UserWarning, match="'d'"):
        found = load(folder, unseen="ignore").predict(new)
    share = rows["kind"].value_counts(normalize=True)
    assert np.allclose(found["mean"], sum(share[level] * each[level] for level in "abc"), rtol=1e-9)


def test_missing_values_are_imputed_by_training_rows(tmp_path: Path) -> None:
    rows = frame().drop(columns="key").assign(key=0, w=np.arange(90) % 4)
    rows.loc[::5, "x"] = None
    rows.loc[::7, "kind"] = None
    folder = fit(tmp_path, rows, "gaussian", "model=linear", "data.missing=impute", "data.weight=w")
    content = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in content["coefficients"]["loc"]]
    assert names == ["(intercept)", "x", "x is missing", "kind=b", "kind=c", "kind is missing", "z"]
    order = np.random.default_rng(0).permutation(90)
    train = rows.iloc[np.sort(order[36:])]
    seen = train["x"].notna()
    mean = np.average(train.loc[seen, "x"], weights=train.loc[seen, "w"])
    x = pd.DataFrame(
        {
            "one": 1.0,
            "x": train["x"].fillna(mean),
            "x is missing": train["x"].isna() * 1.0,
            "b": (train["kind"] == "b") * 1.0,
            "c": (train["kind"] == "c") * 1.0,
            "kind is missing": train["kind"].isna() * 1.0,
            "z": train["z"],
        }
    ).to_numpy()
    root = np.sqrt(train["w"].to_numpy())
    beta = np.linalg.lstsq(x * root[:, None], train["y"] * root, rcond=None)[0]
    assert [row["estimate"] for row in content["coefficients"]["loc"]] == pytest.approx(
        beta.tolist(), rel=1e-7, abs=1e-9
    )

    model = load(folder)
    known = {"kind": ["a", "a", "b"], "z": [0.5, 0.5, 0.5]}
    found = model.predict(pd.DataFrame({"x": [None, mean, None], **known}))["mean"]
    centre = model.predict(pd.DataFrame({"x": [mean, mean, mean], **known}))["mean"]
    assert found[0] - centre[0] == pytest.approx(found[2] - centre[2], rel=1e-9)
    assert found[1] == pytest.approx(centre[1], rel=1e-12)
    assert found[0] != pytest.approx(centre[0], rel=1e-9)
    with pytest.warns(UserWarning, match=r"'z' has missing values, which the training rows had not"):
        found = model.predict(pd.DataFrame({"x": [mean], "kind": ["a"], "z": [None]}).astype({"z": float}))["mean"]
    middle = np.average(train["z"], weights=train["w"])
    same_row = model.predict(pd.DataFrame({"x": [mean], "kind": ["a"], "z": [middle]}))["mean"]
    assert found[0] == pytest.approx(same_row[0], rel=1e-12)
    with pytest.raises(UsageError, match=r"'x': 1, row 0"):
        load(folder, missing="error").predict(
            pd.DataFrame({"x": [None], "kind": ["a"], "z": [0.0]}).astype({"x": float})
        )


def test_roles_are_never_imputed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = frame()
    rows.loc[3, "y"] = None
    rows.to_csv(tmp_path / "d.csv", index=False)
    given = ("data=csv", f"data.path={tmp_path}/d.csv", "data.target=y", "data.missing=impute")
    with warnings.catch_warnings():
        assert run(["check", *given]) == 2
    assert "column 'y': 1, row 5" in capsys.readouterr().err


def test_an_intercept_and_an_exposure(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    years = random.uniform(0.5, 3, 80)
    rows = pd.DataFrame({"y": random.poisson(1.7 * years), "years": years, "key": "a"})
    whole = ("data.exposure=years", "data.test_fraction=0", "data.validation_fraction=0")
    folder = fit(tmp_path, rows, "poisson", "model=linear", "batch=full", "optimizer=lbfgs", *whole)
    (row,) = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))["coefficients"]["rate"]
    rate = rows["y"].sum() / years.sum()
    assert row["estimate"] == pytest.approx(math.log(rate), rel=1e-9)
    assert row["std_error"] == pytest.approx(1 / math.sqrt(rows["y"].sum()), rel=1e-7)
    assert np.allclose(load(folder).predict(rows)["mean"], rate * years, rtol=1e-6)


def test_files_of_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = frame("categorical")
    folder = fit(tmp_path, rows, "categorical")
    new = rows.drop(columns="y").assign(key=[f"=SUM({k})" for k in range(90)], more=1)
    (tmp_path / "new").mkdir()
    new[:40].to_csv(tmp_path / "new" / "1.csv", index=False)
    new[40:].to_csv(tmp_path / "new" / "2.csv.gz", index=False)
    capsys.readouterr()
    found = predicted(tmp_path, folder, f"data.path={tmp_path}/new", output="p.csv")
    message = capsys.readouterr().err
    assert message.count("'more'") == 1
    assert list(found) == ["row", "key", "class", "prob_=high", "prob_low", "prob_middle"]
    assert found["key"].tolist() == [f"'=SUM({k})" for k in range(90)]
    assert set(found["class"]) <= {"'=high", "low", "middle"}
    assert found["row"].tolist() == list(range(90))
    assert (
        run(["predict", f"run={folder}", f"data.path={tmp_path}/new", "quantiles=[0.5]", f"output={tmp_path}/q.csv"])
        == 2
    )
    assert "have no quantiles" in capsys.readouterr().err
    assert not (tmp_path / "q.csv").exists()


def test_a_mistake_far_down_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = frame()
    folder = fit(tmp_path, rows)
    bad = rows.astype({"x": object})
    bad.loc[80, "x"] = "many"
    bad.to_csv(tmp_path / "bad.csv", index=False)
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (400,))
    before = sorted(tmp_path.rglob("*"))
    assert run(["predict", f"run={folder}", f"data.path={tmp_path}/bad.csv", f"output={tmp_path}/p.csv"]) == 2
    assert "row 82" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_rows_are_a_header(tmp_path: Path, table: Callable[..., Path]) -> None:
    rows = frame()
    folder = fit(tmp_path, rows)
    for suffix, write in (("csv", "to_csv"), ("parquet", "to_parquet")):
        path = tmp_path / f"none.{suffix}"
        getattr(rows[:0], write)(path, index=False)
        found = predicted(tmp_path, folder, f"data.path={path}", output=f"p.{suffix}")
        assert len(found) == 0
        assert list(found) == ["row", "key", "mean", "median", "sd", "lower", "upper", "nll_nats"]
