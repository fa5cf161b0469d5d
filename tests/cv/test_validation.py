"""Cross-validation as a person runs it: folds, figures, out-of-fold rows, and folds that fail."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from conftest import Run
from pyarrow import csv, parquet
from sklearn.linear_model import LinearRegression

SHORT = ("trainer.max_epochs=3", "model.hidden=[4]")


def write(path: Path, **columns: Any) -> str:
    csv.write_csv(pa.table(columns), path)
    return f"data.path={path.name}"


def content_of(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rows = parquet.read_table(folder / "rows.parquet")
    found = {name: rows.column(name).to_numpy(zero_copy_only=False) for name in rows.column_names}
    return json.loads((folder / "cv.json").read_text(encoding="utf-8")), found


@pytest.fixture
def plain(tmp_path: Path) -> str:
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 2))
    y = 5 + x @ [2.0, 0.0] + random.normal(size=60)
    return write(tmp_path / "d.csv", a=x[:, 0], b=x[:, 1], g=np.arange(60) % 7, t=np.arange(60), y=y)


def gaussian_nll(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """That of held-out rows under least squares on others, with their maximum likelihood scale."""
    fit = LinearRegression().fit(x[train], y[train])
    square = np.mean((y[train] - fit.predict(x[train])) ** 2)
    return 0.5 * np.log(2 * np.pi * square) + (y[test] - fit.predict(x[test])) ** 2 / (2 * square)


def test_longley_left_out_row_by_row(mlefw: Run, tmp_path: Path) -> None:
    data = sm.datasets.longley.load_pandas()
    columns = {name: data.exog[name].to_numpy() for name in data.exog}
    source = write(tmp_path / "longley.csv", **columns, y=data.endog.to_numpy())
    common = ("baseline", "data=csv", source, "data.target=y", f"data.features=[{','.join(columns)}]")
    done = mlefw(*common, "cv=loo", "run_dir=exact")
    assert done.returncode == 0, done.stderr
    content, rows = content_of(tmp_path / "exact")
    assert content["exact"]
    assert content["press"] == pytest.approx(2886892.5414461, rel=1e-9)
    assert content["nll"]["nats"] == pytest.approx(8.4916501974, abs=1e-9)
    again = mlefw(*common, "cv=kfold", "cv.folds=16", "run_dir=refits")
    assert again.returncode == 0, again.stderr
    refits, others = content_of(tmp_path / "refits")
    assert not refits["exact"]
    order = np.argsort(others["row"])
    for name in ("nll_nats", "baseline_nll_nats"):
        np.testing.assert_allclose(others[name][order], rows[name], rtol=1e-7)


def test_a_row_that_alone_has_a_level_is_refitted(mlefw: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    level = np.array(["a", "b"] * 10 + ["rare"])
    source = write(tmp_path / "d.csv", x=random.normal(size=21), level=level, y=random.normal(size=21))
    done = mlefw("baseline", "data=csv", source, "data.target=y", "cv=loo", "run_dir=cv")
    assert done.returncode == 0, done.stderr
    content, rows = content_of(tmp_path / "cv")
    assert [fold["number"] for fold in content["folds"]] == [20]
    assert np.isfinite(rows["nll_nats"]).all()
    assert content["num_held_out"] == 21


def test_folds_of_the_exact_estimate_are_refits(mlefw: Run, tmp_path: Path, plain: str) -> None:
    common = ("data=csv", plain, "data.target=y", "data.features=[a,b]")
    done = mlefw("baseline", *common, "data.group=g", "cv=kfold", "cv.folds=4", "cv.repeats=2", "run_dir=cv")
    assert done.returncode == 0, done.stderr
    assert "corrected (Nadeau-Bengio)" in done.stdout
    assert "clustered by group" in done.stdout
    content, rows = content_of(tmp_path / "cv")
    table = csv.read_csv(tmp_path / "d.csv")
    x = np.column_stack([table.column("a"), table.column("b")])
    y = table.column("y").to_numpy()
    assert len(rows["row"]) == 120
    for fold in content["folds"]:
        here = (rows["repeat"] == fold["repeat"]) & (rows["fold"] == fold["fold"])
        test = rows["row"][here]
        train = np.setdiff1d(np.arange(60), test)
        assert not set(train % 7) & set(test % 7)
        expected = gaussian_nll(x, y, train, test)
        np.testing.assert_allclose(rows["nll_nats"][here], expected, rtol=1e-9)
        np.testing.assert_allclose(
            rows["baseline_nll_nats"][here], gaussian_nll(np.zeros((60, 1)), y, train, test), rtol=1e-9
        )
        assert fold["nll_nats"] == pytest.approx(expected.mean(), rel=1e-9)
    assert content["nll"]["nats"] == pytest.approx(rows["nll_nats"].mean(), rel=1e-12)
    difference = rows["nll_nats"] - rows["baseline_nll_nats"]
    assert content["difference"]["nats"] == pytest.approx(difference.mean(), rel=1e-9)


def test_a_network_is_fitted_in_every_fold_beside_its_baseline(mlefw: Run, tmp_path: Path, plain: str) -> None:
    common = ("data=csv", plain, "data.target=y", "data.features=[a,b]", *SHORT)
    done = mlefw("train", *common, "cv=rolling", "data.time=t", "cv.horizon=0.25", "run_dir=cv")
    assert done.returncode == 0, done.stderr
    content, rows = content_of(tmp_path / "cv")
    assert [(fold["num_train"], fold["num_test"]) for fold in content["folds"]] == [(30, 15), (45, 15)]
    assert rows["row"].tolist() == list(range(30, 60))
    assert "hac_se" in content["nll"]
    assert (content["name"], content["baseline"]["name"]) == ("mlp", "linear MLE")
    for fold in content["folds"]:
        summary = json.loads((tmp_path / "cv" / fold["run_dir"] / "summary.json").read_text(encoding="utf-8"))
        assert summary["num_rows"]["train"] + summary["num_rows"]["validation"] == fold["num_train"]
        assert fold["nll_nats"] == pytest.approx(summary["metrics"]["test"]["nll_nats"], rel=1e-9)
        assert fold["baseline_nll_nats"] == pytest.approx(summary["baseline"]["test"]["nll_nats"], rel=1e-9)
    # One fold alone is the same run, and its own rows are found again.
    alone = mlefw("train", *common, "cv=rolling", "data.time=t", "cv.horizon=0.25", "cv.fold=1", "run_dir=one")
    assert alone.returncode == 0, alone.stderr
    one = json.loads((tmp_path / "one" / "summary.json").read_text(encoding="utf-8"))
    assert one["metrics"]["test"] == summary["metrics"]["test"]
    scored = mlefw("evaluate", f"run=cv/{fold['run_dir']}", "output=scored.json")
    assert scored.returncode == 0, scored.stderr
    figures = json.loads((tmp_path / "scored.json").read_text(encoding="utf-8"))["metrics"]
    assert figures["nll_nats"] == pytest.approx(summary["metrics"]["test"]["nll_nats"], rel=1e-9)


def test_a_fold_that_cannot_be_fitted_costs_itself_alone(mlefw: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=40)
    # Without the one row of group 3 that lies on the wrong side, a line parts the classes.
    y = (x > 0).astype(int)
    y[0] = 1 - y[0]
    x[0] = 3.0 * np.sign(x[0])
    groups = np.where(np.arange(40) == 0, 3, np.arange(40) % 3)
    source = write(tmp_path / "d.csv", x=x, g=groups, y=y)
    done = mlefw(
        *("baseline", "head=bernoulli", "data=csv", source, "data.target=y", "data.group=g", "cv=loo", "run_dir=cv")
    )
    assert done.returncode == 5, done.stderr
    content, rows = content_of(tmp_path / "cv")
    assert content["status"] == "incomplete"
    assert [fold["number"] for fold in content["failed"]] == [3]
    assert "no finite estimate" in content["failed"][0]["reason"]
    assert "fold 3 was not fitted: no finite estimate" in done.stdout
    assert np.isnan(rows["nll_nats"]).sum() == 1
    assert content["num_held_out"] == 39
    assert content["nll"]["nats"] == pytest.approx(np.nanmean(rows["nll_nats"]), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "-m", "cv=kfold", "seed=0,1"), "cv= runs a fit for each fold: expected it without -m"),
        (("train", "cv=kfold", "cv.fold=10"), "cv.fold=10: there are 10 folds, from 0 to 9"),
        (("train", "cv=kfold", "cv.folds=61"), "cv.folds=61: "),
        (("train", "cv=kfold", "data.test_path=d.csv"), "test rows of their own"),
        (("baseline", "cv=rolling"), "cv=rolling needs data.time=COLUMN"),
        (("baseline", "cv=kfold", "baseline=none"), "baseline=none: there is nothing to estimate"),
        (("train", "cv=kfold", "head=poisson"), "PoissonHead cannot take"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    mlefw: Run, tmp_path: Path, plain: str, arguments: tuple[str, ...], message: str
) -> None:
    command, *settings = arguments
    done = mlefw(command, *settings, "data=csv", plain, "data.target=y", "run_dir=cv")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "cv").exists()
