"""Several targets from the command line on: exact estimates, training, evaluation, prediction, refusals.

The estimates come from statsmodels, scipy and plain sums, on data sets that scikit-learn brings along.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from scipy.optimize import linprog
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris, load_linnerud

from mlefw.command import baseline, evaluate, predict, train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import EvaluationSettings, PredictionSettings
from mlefw.errors import UsageError

pytestmark = [
    # Lightning calls a part of torch that torch has deprecated.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:no finite linear MLE"),
]

WHOLE = ["data.test_fraction=0", "data.validation_fraction=0"]
LINEAR = ["model=linear", "batch=full", "optimizer=lbfgs", "logger=none"]


def write(file: Path, columns: dict[str, list[Any]]) -> str:
    with file.open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return f"data.path={file}"


def estimate(folder: Path, *settings: str) -> dict[str, Any]:
    config = read_settings("baseline", ["data=csv", *settings], [], [])
    name = f"baseline{len(list(folder.iterdir()))}"
    return baseline.run(settings_of({**config, "run_dir": str(folder / name)}), folder / name)


def trained(folder: Path, *settings: str) -> dict[str, Any]:
    config = read_settings("train", ["data=csv", *settings], [], [])
    return train.run(settings_of({**config, "run_dir": str(folder / "run")}), folder / "run")


@pytest.fixture
def linnerud(tmp_path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Three exercises and three measurements of twenty men."""
    bunch = load_linnerud()
    names = [*bunch.feature_names, *bunch.target_names]
    content = np.hstack([bunch.data, bunch.target])
    path = write(tmp_path / "linnerud.csv", {name: content[:, j].tolist() for j, name in enumerate(names)})
    return path, sm.add_constant(bunch.data), bunch.target


def least_absolute(x: np.ndarray, y: np.ndarray) -> float:
    """The least sum of absolute residuals, by a linear program."""
    n, p = x.shape
    cost = np.concatenate([np.zeros(p), np.ones(2 * n)])
    bounds = [(None, None)] * p + [(0, None)] * (2 * n)
    return float(linprog(cost, A_eq=np.hstack([x, np.eye(n), -np.eye(n)]), b_eq=y, bounds=bounds).fun)


def mixed(rows: int = 150) -> dict[str, list[Any]]:
    """Iris: a number, a class and a count, each missing in some rows but none of them all at once.

    A third of the classes are drawn at random, so that no combination of the features separates them.
    """
    bunch, random = load_iris(), np.random.default_rng(0)
    classes = np.where(random.random(150) < 1 / 3, random.integers(0, 3, 150), bunch.target)
    petal = [f"{v}" if i % 5 else "" for i, v in enumerate(bunch.data[:, 2].tolist())]
    species = [bunch.target_names[k] if i % 7 != 1 else "" for i, k in enumerate(classes.tolist())]
    count = [str(round(v * 2)) for v in bunch.data[:, 3].tolist()]
    columns = {"sepal": bunch.data[:, 0].tolist(), "width": bunch.data[:, 1].tolist()}
    return {k: v[:rows] for k, v in {**columns, "petal": petal, "species": species, "count": count}.items()}


TASKS = [
    "head=multitask",
    "data.target=[petal,species,count]",
    "head.tasks.petal=gaussian",
    "head.tasks.species=categorical",
    "head.tasks.count={head: poisson}",
]


def test_a_shared_covariance_is_least_squares_in_each_column(linnerud: Any, tmp_path: Path) -> None:
    path, x, y = linnerud
    content = estimate(tmp_path, path, "data.target=[Weight,Waist,Pulse]", "head=multivariate_gaussian", *WHOLE)
    fits = [sm.OLS(y[:, k], x).fit() for k in range(3)]
    residuals = np.stack([fit.resid for fit in fits], 1)
    sigma = residuals.T @ residuals / len(y)
    expected = multivariate_normal(cov=sigma).logpdf(residuals).sum()
    assert content["log_likelihood"] == pytest.approx(expected, abs=1e-9)
    assert content["is_global"]
    assert content["residual"] < 1e-10
    assert content["standard_errors"] == "RSS / (n - p), t quantiles"
    for name, fit in zip(("Weight", "Waist", "Pulse"), fits, strict=True):
        rows = content["coefficients"][f"{name}.loc"]
        np.testing.assert_allclose([row["estimate"] for row in rows], fit.params, rtol=1e-9)
        np.testing.assert_allclose([row["std_error"] for row in rows], fit.bse, rtol=1e-9)
        np.testing.assert_allclose([row["p_value"] for row in rows], fit.pvalues, rtol=1e-8)
    # A target given those before it: the regression of residuals on residuals.
    slopes, rest = np.linalg.lstsq(residuals[:, :2], residuals[:, 2], rcond=None)[:2]
    shared = {key: rows[0]["estimate"] for key, rows in content["coefficients"].items()}
    assert shared["Pulse.on_Weight"] == pytest.approx(slopes[0], rel=1e-8)
    assert shared["Pulse.on_Waist"] == pytest.approx(slopes[1], rel=1e-8)
    assert shared["Pulse.scale"] == pytest.approx((rest[0] / len(y)) ** 0.5, rel=1e-9)
    assert shared["Weight.scale"] == pytest.approx(sigma[0, 0] ** 0.5, rel=1e-9)


@pytest.mark.parametrize("head", ["gaussian", "laplace"])
def test_independent_columns_are_estimated_one_by_one(head: str, linnerud: Any, tmp_path: Path) -> None:
    path, x, y = linnerud
    content = estimate(
        tmp_path, path, "data.target=[Weight,Pulse]", "data.features=[Chins,Situps,Jumps]", f"head={head}", *WHOLE
    )
    fits = [sm.OLS(y[:, k], x).fit() for k in (0, 2)]
    if head == "gaussian":
        expected = sum(fit.llf for fit in fits)
    else:
        expected = sum(-len(y) * (1 + np.log(2 * least_absolute(x, y[:, k]) / len(y))) for k in (0, 2))
    assert content["log_likelihood"] == pytest.approx(expected, abs=1e-7)
    for name, fit in zip(("Weight", "Pulse"), fits, strict=True):
        rows = content["coefficients"][f"{name}.loc"]
        assert content["titles"][f"{name}.loc"] == f"{name}: loc"
        if head == "gaussian":
            np.testing.assert_allclose([row["estimate"] for row in rows], fit.params, rtol=1e-9)
            np.testing.assert_allclose([row["std_error"] for row in rows], fit.bse, rtol=1e-9)


def test_training_reaches_the_exact_estimate_of_a_multivariate_normal(linnerud: Any, tmp_path: Path) -> None:
    path, *_ = linnerud
    summary = trained(tmp_path, path, "data.target=[Weight,Waist]", "head=multivariate_gaussian", *LINEAR, *WHOLE)
    assert abs(summary["distance"]["excess_objective"]) < 1e-6
    assert summary["distance"]["predictive_kl"]["train"] == pytest.approx(0, abs=1e-6)
    figures = summary["metrics"]["train"]
    assert {"Weight/crps", "Waist/coverage_90", "Weight/nll_nats", "nll_nats"} <= set(figures)
    assert figures["nll_nats"] < figures["Weight/nll_nats"] + figures["Waist/nll_nats"]
    assert summary["num_parameters"] == 2 * 5 + 3


def test_tasks_of_several_kinds_with_missing_targets(tmp_path: Path) -> None:
    columns = mixed()
    path = write(tmp_path / "iris.csv", columns)
    content = estimate(tmp_path, path, *TASKS, *WHOLE)
    x = sm.add_constant(np.column_stack([columns["sepal"], columns["width"]]).astype(float))
    petal = np.array([value != "" for value in columns["petal"]])
    species = np.array([value != "" for value in columns["species"]])
    fits = {
        "petal": sm.OLS(np.array([float(v) for v in columns["petal"] if v]), x[petal]).fit(),
        "count": sm.Poisson(np.array(columns["count"], dtype=float), x).fit(disp=0, tol=1e-14),
        "species": sm.MNLogit(
            np.array([sorted({*columns["species"]} - {""}).index(v) for v in columns["species"] if v]), x[species]
        ).fit(disp=0, method="newton", maxiter=100, tol=1e-14),
    }
    assert content["log_likelihood"] == pytest.approx(sum(fit.llf for fit in fits.values()), abs=1e-8)
    assert content["nll_nats"] == pytest.approx(-content["log_likelihood"] / 150)
    assert content["is_global"]
    of_species = fits["species"].params
    expected = {"petal.loc": fits["petal"], "count.rate": fits["count"]}
    found = {key: [row["estimate"] for row in rows] for key, rows in content["coefficients"].items()}
    for key, fit in expected.items():
        np.testing.assert_allclose(found[key], fit.params, rtol=1e-7)
        np.testing.assert_allclose([row["std_error"] for row in content["coefficients"][key]], fit.bse, rtol=1e-6)
    for k, name in enumerate(("versicolor", "virginica")):
        np.testing.assert_allclose(found[f"species.{name}"], of_species[:, k], rtol=1e-6)


def test_a_whole_run_with_missing_targets(tmp_path: Path) -> None:
    columns = mixed()
    path = write(tmp_path / "iris.csv", columns)
    settings = [*TASKS, "trainer.max_epochs=3", "logger=none", "report=false", "plots=false"]
    summary = trained(tmp_path, path, *settings, "prior=l2")
    figures = summary["metrics"]["test"]
    assert {"petal/crps", "species/accuracy", "count/perplexity", "species/ece_15", "count/zeros_expected"} <= {
        *figures
    }
    assert "species/crps" not in figures
    run = tmp_path / "run"
    score = EvaluationSettings.of(read_settings("evaluate", [f"run={run}"], [], []))
    assert evaluate.run(score)["metrics"] == pytest.approx(figures, rel=1e-9)
    asked = [f"run={run}", path, f"output={tmp_path / 'out.parquet'}"]
    table = pq.read_table(predict.run(PredictionSettings.of(read_settings("predict", asked, [], []))))
    expected = ["petal_mean", "petal_median", "petal_sd", "petal_lower", "petal_upper", "species_class"]
    expected += [f"species_prob_{name}" for name in ("setosa", "versicolor", "virginica")]
    assert table.column_names[1:11] == [*expected, "count_mean"]
    assert table.column("nll_nats").null_count == 0
    probabilities = sum(np.asarray(table.column(name)) for name in expected[-3:])
    np.testing.assert_allclose(probabilities, 1, rtol=1e-12)
    new = write(tmp_path / "new.csv", {"width": [3.0], "sepal": [5.0]})
    asked = [f"run={run}", new, f"output={tmp_path / 'new.parquet'}"]
    table = pq.read_table(predict.run(PredictionSettings.of(read_settings("predict", asked, [], []))))
    assert "nll_nats" not in table.column_names
    stored = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert stored["metrics"]["test"] == figures


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head=multivariate_gaussian", "data.target=petal"], r"for several targets: expected data\.target"),
        (["head=multitask", "data.target=[petal,count]"], "head.tasks is empty"),
        (["data.target=[petal,count]", *TASKS[:1], *TASKS[2:]], "head.tasks names petal, species, count"),
        (["head=multitask", "data.target=[petal,count]", "head.tasks.petal=gausian"], "Did you mean 'gaussian'"),
        (
            ["head=gaussian", "data.target=[count,count]", "data.features=[sepal]"],
            "is both",
        ),
        (["head=gaussian", "data.target=[petal,count]", "data.offset=width"], "belong to one target"),
        (["head=gaussian", "data.target=[petal,count]"], "missing"),
        (
            ["head=poisson", "data.target=[count,width]", "data.features=[sepal]"],
            "'width' has values that PoissonHead",
        ),
        ([*TASKS, "uncertainty=laplace"], "uncertainty=laplace is for one target"),
        ([*TASKS, "calibrate=scale"], "calibrate=scale is for one target"),
    ],
)
def test_mistakes_are_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "iris.csv", mixed())
    with pytest.raises(UsageError, match=message):
        trained(tmp_path, path, *settings)
    assert not (tmp_path / "run").exists()


def test_a_row_without_any_target_is_refused(tmp_path: Path) -> None:
    columns = mixed()
    for name in ("petal", "species", "count"):
        columns[name][3] = ""
    with pytest.raises(UsageError, match=r"row 5 have none of the targets petal, species, count"):
        trained(tmp_path, write(tmp_path / "iris.csv", columns), *TASKS)


def test_a_task_is_held_to_the_allowed_packages(tmp_path: Path) -> None:
    settings = ["head=multitask", "data.target=[petal,count]", "head.tasks.petal._target_=os.system"]
    with pytest.raises(UsageError, match="was refused"):
        trained(tmp_path, write(tmp_path / "iris.csv", mixed()), *settings, "head.tasks.count=poisson")
