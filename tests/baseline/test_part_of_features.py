"""A run whose exact estimate has only a part of its features."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from conftest import Run, summary_of
from pyarrow import csv

SHORT = ("model=linear", "batch=full", "optimizer=lbfgs", "trainer.max_epochs=30", "data.validation_fraction=0")


@pytest.mark.parametrize("prior", ["none", "l2"])
def test_distances_are_from_the_estimate_on_that_part(
    mlefw: Run, table: Callable[..., Path], tmp_path: Path, prior: str
) -> None:
    path = table(num_rows=100)
    priors = ("prior=l2", "prior.scale=5") if prior == "l2" else ()
    run = mlefw(
        "train",
        "data=csv",
        f"data.path={path}",
        "data.target=y",
        "data.test_fraction=0",
        "baseline.features=[x2]",
        "run_dir=run",
        *SHORT,
        *priors,
    )
    assert run.returncode == 0, run.stderr
    assert "nan" not in run.stdout.lower()
    columns = csv.read_csv(path)
    y = columns["y"].to_numpy()
    whole = sm.OLS(y, sm.add_constant(np.column_stack([columns[f"x{j}"].to_numpy() for j in range(3)]))).fit()
    part = sm.OLS(y, sm.add_constant(columns["x2"].to_numpy())).fit()
    estimate = "MAP" if prior == "l2" else "MLE"
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for text in (run.stdout, report):
        assert f"linear {estimate} (exact, 1 of 3 features)" in text
        assert "linear MLE on 1 of 3 features" in text
    summary = summary_of(tmp_path / "run")
    assert summary["baseline"]["train"]["nll_nats"] == pytest.approx(-part.llf / 100, rel=1e-9)
    distance = summary["distance"]
    # Training has all features: what it descends to is not this estimate, so nothing is an excess over it.
    assert "excess_objective" not in distance
    assert "parameter" not in distance
    if prior == "none":
        assert distance["gap_nats"]["train"] == pytest.approx((part.llf - whole.llf) / 100, abs=1e-6)
    content = json.loads((tmp_path / "run" / "baseline.json").read_text(encoding="utf-8"))
    mle = content["mle"] if prior == "l2" else content
    found = [row["estimate"] for row in mle["coefficients"]["loc"]]
    np.testing.assert_allclose(found, part.params, rtol=1e-9)
    assert content["dropped"] == []


def test_all_features_by_name_are_all_features(mlefw: Run, table: Callable[..., Path], tmp_path: Path) -> None:
    common = ("train", "data=csv", f"data.path={table()}", "data.target=y", *SHORT)
    named = mlefw(*common, "baseline.features=[x2,x0,x1]", "run_dir=named")
    assert named.returncode == 0, named.stderr
    assert "of 3 features" not in named.stdout
    distance = summary_of(tmp_path / "named")["distance"]
    assert abs(distance["excess_objective"]) < 1e-9
    assert distance["parameter"]["mahalanobis"] < 1e-3


def test_a_wrong_name_writes_no_run(mlefw: Run, table: Callable[..., Path], tmp_path: Path) -> None:
    run = mlefw("train", "data=csv", f"data.path={table()}", "data.target=y", "baseline.features=[xx1]", "run_dir=run")
    assert run.returncode == 2
    assert "'xx1' (baseline.features): did you mean" in run.stderr
    assert not (tmp_path / "run").exists()
