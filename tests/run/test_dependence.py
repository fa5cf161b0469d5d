"""Columns of clusters and times from a table to the standard errors of `mlefw baseline`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from pyarrow import csv

from mlefw.command import baseline
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import UsageError
from mlefw.run.build import build_data

pytestmark = pytest.mark.filterwarnings("ignore:baseline.standard_errors=cluster. with:UserWarning")

NUM = 90
RNG = np.random.default_rng(5)
X = RNG.normal(size=NUM)
FIRM = RNG.integers(0, 40, NUM)
YEAR = RNG.integers(0, 35, NUM) + 1980
Y = 1 + X + RNG.normal(size=40)[FIRM] + RNG.normal(size=NUM)
DAY = np.datetime64("2020-01-01") + RNG.permutation(NUM)


def overrides(folder: Path, *more: str, **columns: Any) -> list[str]:
    """A table of a target, a feature, firms, years and days."""
    names = {"y": Y, "x": X, "firm": [f"f{code:02}" for code in FIRM], "year": YEAR, "day": DAY.astype(str), **columns}
    csv.write_csv(pa.table({name: pa.array(column) for name, column in names.items()}), folder / "data.csv")
    roles = ["data=csv", f"data.path={folder / 'data.csv'}", "data.target=y", "data.features=[x]"]
    return [*roles, *more]


def run(folder: Path, *settings: str) -> dict[str, Any]:
    """`mlefw baseline` without a process of its own: what it wrote."""
    config = read_settings("baseline", settings, [], ())
    baseline.run(settings_of({**config, "run_dir": str(folder / "run")}), folder / "run")
    content: dict[str, Any] = json.loads((folder / "run" / "baseline.json").read_text(encoding="utf-8"))
    return content


def errors(content: dict[str, Any]) -> list[float]:
    return [row["std_error"] for row in content["coefficients"]["loc"]]


@pytest.mark.parametrize("role", ["cluster", "group"])
def test_clusters_of_a_column(role: str, tmp_path: Path) -> None:
    content = run(tmp_path, *overrides(tmp_path, f"data.{role}=firm", "baseline.standard_errors=cluster"))
    fit = sm.OLS(Y, sm.add_constant(X)).fit()
    ours = fit.get_robustcov_results("cluster", groups=FIRM)
    np.testing.assert_allclose(errors(content), ours.bse, rtol=1e-9)
    count = len(np.unique(FIRM))
    assert content["standard_errors"] == f"sandwich (cluster: {count} of firm), t quantiles with {count - 1} df"
    row = content["coefficients"]["loc"][1]
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], ours.conf_int()[1], rtol=1e-9)


def test_clusters_of_two_columns(tmp_path: Path) -> None:
    asked = ["data.cluster=[firm,year]", "baseline.standard_errors=cluster"]
    content = run(tmp_path, *overrides(tmp_path, *asked))
    assert content["standard_errors"].startswith(f"sandwich (cluster: {len(set(FIRM))} of firm and {len(set(YEAR))} of")
    assert errors(content) != errors(run_again(tmp_path, "data.cluster=firm"))


def run_again(folder: Path, setting: str) -> dict[str, Any]:
    other = folder / "other"
    other.mkdir()
    return run(other, *overrides(other, setting, "baseline.standard_errors=cluster"))


@pytest.mark.parametrize("time", ["day", "number"])
def test_dates_and_numbers_order_rows(time: str, tmp_path: Path) -> None:
    order = np.argsort(DAY)
    number = (DAY - DAY.min()).astype(int) * 0.25
    asked = [f"data.time={time}", "baseline.standard_errors=hac", "baseline.lag=4"]
    content = run(tmp_path, *overrides(tmp_path, *asked, number=number))
    fit = sm.OLS(Y[order], sm.add_constant(X[order])).fit().get_robustcov_results("HAC", maxlags=4)
    np.testing.assert_allclose(errors(content), fit.bse, rtol=1e-9)


def test_clusters_are_those_of_the_training_rows_in_their_order(tmp_path: Path) -> None:
    asked = ["data.cluster=[firm,year]", "data.test_fraction=0.3", "data.validation_fraction=0.2"]
    data = build_data(settings_of(read_settings("train", overrides(tmp_path, *asked), [], ())))
    depends, train = data.dependence, data.train
    at = [int(np.flatnonzero(value == X)[0]) for value in train.x[:, 0].tolist()]
    assert len(at) == 45
    for code, column in zip(depends.clusters, (FIRM, YEAR), strict=True):
        assert np.array_equal(np.unique(column)[code.numpy()], column[at])
    # Row numbers of the file, the first after its header.
    assert [depends.row_name(k) for k in range(45)] == [str(row + 2) for row in at]


def test_a_listed_cluster_is_a_feature_in_its_own_type(tmp_path: Path) -> None:
    settings = overrides(tmp_path, "data.cluster=year", "baseline.standard_errors=cluster")
    settings[3] = "data.features=[x,year]"
    names = [row["name"] for row in run(tmp_path, *settings)["coefficients"]["loc"]]
    assert names == ["(intercept)", "x", "year"]


REFUSED = [
    (["data.cluster=firn", "baseline.standard_errors=cluster"], "lacks these columns\n  'firn' (data.cluster)"),
    (["data.cluster=[firm,year,x]"], "expected one column, or two different ones"),
    (["data.cluster=[firm,firm]"], "expected one column, or two different ones"),
    (["baseline.standard_errors=cluster"], "expected data.cluster=COLUMN"),
    (["data.cluster=one", "baseline.standard_errors=cluster"], "all training rows are in one cluster of column 'one'"),
    (["baseline.standard_errors=hac"], "expected data.time=COLUMN"),
    (["data.time=year", "baseline.standard_errors=hac"], "have one time (data.time=year)"),
    (["data.time=day", "data.weight=two", "baseline.standard_errors=hac"], "takes each row for one moment"),
    (["data.time=day", "baseline.lag=3"], "baseline.lag=3 is for baseline.standard_errors=hac"),
]


@pytest.mark.parametrize(("asked", "said"), REFUSED)
def test_refused_before_anything_is_written(asked: list[str], said: str, tmp_path: Path) -> None:
    settings = overrides(tmp_path, *asked, one=np.ones(NUM), two=np.full(NUM, 2.0))
    with pytest.raises(UsageError) as error:
        run(tmp_path, *settings)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_few_clusters_gaps_and_unused_clusters_are_said(tmp_path: Path) -> None:
    asked = ["data.cluster=three", "baseline.standard_errors=cluster"]
    with pytest.warns(UserWarning, match="with 3 clusters of column 'three' the errors tend to be too small"):
        content = run(tmp_path, *overrides(tmp_path, *asked, three=np.arange(NUM) % 3))
    assert "t quantiles with 2 df, rank 2 for 3 parameters" in content["standard_errors"]
    (tmp_path / "b").mkdir()
    gapped = np.arange(NUM) + 7 * (np.arange(NUM) > 50)
    with pytest.warns(UserWarning, match="counts lags in rows, and 1 distance between successive times"):
        run(tmp_path / "b", *overrides(tmp_path, "data.time=t", "baseline.standard_errors=hac", t=gapped))
    (tmp_path / "c").mkdir()
    with pytest.warns(UserWarning, match="data.cluster is for baseline.standard_errors=cluster alone"):
        run(tmp_path / "c", *overrides(tmp_path, "data.cluster=firm"))


def test_a_row_that_determines_a_coefficient_is_named_by_its_line(tmp_path: Path) -> None:
    alone = np.zeros(NUM)
    alone[17] = 1.0
    settings = overrides(tmp_path, "baseline.standard_errors=hc3", alone=alone)
    settings[3] = "data.features=[x,alone]"
    content = run(tmp_path, *settings)
    assert "the leverage h of row 19 is 1" in content["standard_errors"]
