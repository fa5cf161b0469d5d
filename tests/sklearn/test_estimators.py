"""The estimators for scikit-learn: what they predict, what they take, and that they leave nothing behind."""

import io
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import matplotlib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from mlefw.errors import NumericalError
from mlefw.fit import fit
from mlefw.sklearn import EXPECTED_FAILED_CHECKS, LikelihoodClassifier, LikelihoodRegressor
from mlefw.sklearn.settings import overrides, seed, written

pytestmark = pytest.mark.filterwarnings("default")

FEW: dict[str, Any] = {"max_epochs": 2, "hidden": [4]}
EXACT: dict[str, Any] = {
    "model": "linear",
    "batch": "full",
    "validation_fraction": 0.0,
    "settings": ["optimizer=lbfgs"],
}
"""Trains a linear model to its exact estimate."""

NUM_ROWS = 120


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert [file.name for file in tmp_path.iterdir() if file.name != "asked_for"] == []


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    kind = pd.Categorical(rng.choice(["low", "mid", "high"], NUM_ROWS), ["low", "mid", "high"], ordered=True)
    columns = {"age": rng.normal(size=NUM_ROWS), "size": rng.uniform(1, 3, NUM_ROWS), "kind": kind}
    return pd.DataFrame({**columns, "text": rng.choice(["u", "v"], NUM_ROWS), "ok": rng.random(NUM_ROWS) < 0.5})


@pytest.fixture(scope="module")
def number(frame: pd.DataFrame) -> pd.Series:
    noise = np.random.default_rng(4).normal(size=NUM_ROWS)
    return (frame["age"] + (frame["text"] == "u") + 0.3 * noise).rename("claims")


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, number: pd.Series) -> LikelihoodRegressor:
    return LikelihoodRegressor(**FEW).fit(frame, number)


@pytest.fixture(scope="module")
def classes(number: pd.Series) -> np.ndarray:
    return np.array(["b", "a", "c"])[np.digitize(number, [0, 1])]


def test_a_linear_gaussian_is_ridge_regression(frame: pd.DataFrame, number: pd.Series) -> None:
    """Against scikit-learn: the weights have the prior N(0, 0.5²) in units of the standardised columns."""
    x = StandardScaler().fit_transform(frame[["age", "size"]])
    model = LikelihoodRegressor(head="gaussian", prior="none", **EXACT).fit(x, number)
    ols = Ridge(alpha=1e-10).fit(x, number)
    assert model.predict(x) == pytest.approx(ols.predict(x), abs=1e-6)
    sigma = np.sqrt(np.mean((number - ols.predict(x)) ** 2))
    assert model.score(x, number) == pytest.approx(stats.norm.logpdf(number, ols.predict(x), sigma).mean(), abs=1e-8)
    weight = np.arange(NUM_ROWS) % 3
    expected = np.average(stats.norm.logpdf(number, ols.predict(x), sigma), weights=weight)
    assert model.score(x, number, sample_weight=weight) == pytest.approx(expected, abs=1e-8)
    low, high = model.predict_interval(x, 0.8).T
    assert high - low == pytest.approx(2 * stats.norm.ppf(0.9) * sigma, rel=1e-6)
    quantiles = model.predict_quantile(x, [0.1, 0.5])
    assert quantiles[:, 0] == pytest.approx(low, rel=1e-12)
    assert model.predict_quantile(x, 0.5) == pytest.approx(quantiles[:, 1], rel=1e-12)
    assert model.predict_distribution(x).batch_shape == (NUM_ROWS,)


def test_linear_classes_are_logistic_regression(frame: pd.DataFrame, classes: np.ndarray) -> None:
    x, weight = frame[["age", "size"]].to_numpy(), np.arange(NUM_ROWS) % 3
    model = LikelihoodClassifier(**EXACT).fit(x, classes, sample_weight=weight)
    known = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, classes, sample_weight=weight)
    assert model.predict_proba(x) == pytest.approx(known.predict_proba(x), abs=1e-5)
    assert (model.predict(x) == known.predict(x)).all()
    assert np.exp(model.predict_log_proba(x)) == pytest.approx(model.predict_proba(x), rel=1e-12)
    assert model.classes_.tolist() == ["a", "b", "c"]
    expected = -log_loss(classes, model.predict_proba(x), labels=["a", "b", "c"])
    assert model.score(x, classes) == pytest.approx(expected, rel=1e-10)


def test_counts_with_an_exposure_and_weights(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(5)
    x, years = frame[["age", "size"]].to_numpy(), rng.uniform(0.5, 4, NUM_ROWS)
    count, weight = rng.poisson(years * np.exp(0.3 * x[:, 0])), rng.integers(0, 4, NUM_ROWS)
    model = LikelihoodRegressor("poisson", **EXACT).fit(x, count, sample_weight=weight, exposure=years)
    known = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(x, count / years, sample_weight=years * weight)
    rate = model.predict(x, exposure=np.ones(NUM_ROWS))
    assert rate == pytest.approx(known.predict(x), rel=1e-5)
    assert model.predict(x, exposure=years) == pytest.approx(rate * years, rel=1e-10)
    assert model.score(x, count, exposure=years) == pytest.approx(
        stats.poisson.logpmf(count, rate * years).mean(), rel=1e-10
    )
    shifted = LikelihoodRegressor("poisson", **EXACT).fit(x, count, weight, np.log(years))
    assert shifted.predict(x, np.log(years)) == pytest.approx(rate * years, rel=1e-9)
    for wrong in (lambda: model.predict(x), lambda: model.score(x, count), lambda: shifted.predict(x, exposure=years)):
        with pytest.raises(ValueError, match=r"expected: (exposure|offset)= for these rows and those of fit"):
            wrong()


def test_it_is_the_training_of_mlefw(fitted: LikelihoodRegressor, frame: pd.DataFrame, number: pd.Series) -> None:
    given = ("trainer.max_epochs=2", "model.hidden=[4]", "trainer.precision=64", "data.test_fraction=0")
    few = ("logger=none", "report=false", "plots=false", "baseline=none")
    model = fit(frame, number, *given, *few, run_dir="asked_for")
    assert model.predict(frame)["mean"].to_numpy() == pytest.approx(fitted.predict(frame), abs=0)
    assert model.summary["metrics"] == fitted.summary_["metrics"]
    assert fitted.model_.features == ["age", "size", "kind", "text", "ok"]
    assert fitted.model_.target == "claims"


def test_a_run_directory_where_it_is_asked_for(frame: pd.DataFrame, number: pd.Series) -> None:
    settings = {"report": False, "plots": False, "logger": "none", "baseline": "none"}
    model = LikelihoodRegressor(run_dir="asked_for", settings=settings, **FEW).fit(frame, number)
    assert Path("asked_for/summary.json").is_file()
    assert model.summary_["num_epochs"] == 2
    with pytest.raises(ValueError, match="already holds a run"):
        model.fit(frame, number)


def test_the_state_is_data(fitted: LikelihoodRegressor, frame: pd.DataFrame) -> None:
    """A pickle names no class of mlefw but that of the estimator, and no class of Lightning or Hydra."""
    text, named = pickle.dumps(fitted), set[str]()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add(module)
            return super().find_class(module, name)

    Noting(io.BytesIO(text)).load()
    assert {name.split(".")[0] for name in named} <= {"mlefw", "numpy", "torch", "collections"}
    assert {name for name in named if name.startswith("mlefw")} == {"mlefw.sklearn.regressor"}
    again = pickle.loads(text)
    assert (again.predict(frame) == fitted.predict(frame)).all()
    assert (pickle.loads(pickle.dumps(again)).predict(frame) == fitted.predict(frame)).all()
    assert not hasattr(clone(fitted), "summary_")
    assert pickle.loads(pickle.dumps(clone(fitted))).get_params() == clone(fitted).get_params()


@pytest.mark.slow
def test_another_process_loads_it(fitted: LikelihoodRegressor, frame: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "asked_for"
    folder.mkdir()
    joblib.dump((fitted, frame), folder / "model.joblib")
    code = "import joblib; model, x = joblib.load('asked_for/model.joblib'); print(*model.predict(x).tolist())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert list(map(float, found.stdout.split())) == fitted.predict(frame).tolist()


def global_state() -> list[Any]:
    names = ("lightning", "matplotlib", "sklearn")
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return [
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        matplotlib.get_backend(),
        dict(os.environ),
        list(warnings.filters),
        warnings.showwarning,
        {one.name: (one.level, list(one.handlers)) for one in loggers if one.name.startswith(names)},
        Path.cwd(),
    ]


def test_global_state_stays(frame: pd.DataFrame, number: pd.Series, capfd: pytest.CaptureFixture[str]) -> None:
    before = global_state()
    # A column that never changes is warned of, as a warning of Python.
    with pytest.warns(UserWarning, match="constant"):
        model = LikelihoodRegressor(random_state=None, **FEW).fit(frame.assign(one=1.0), number)
    model.predict_interval(frame.assign(one=1.0))
    model.score(frame.assign(one=1.0), number)
    assert global_state() == before
    assert capfd.readouterr() == ("", "")


def test_what_is_printed(frame: pd.DataFrame, number: pd.Series, capfd: pytest.CaptureFixture[str]) -> None:
    LikelihoodRegressor(verbose=True, **FEW).fit(frame.assign(one=1.0), number)
    assert "mlefw: warning: " in capfd.readouterr().err


def test_seeds() -> None:
    generator = np.random.default_rng(0)
    assert seed(7) == seed(np.int64(7)) == 7
    assert seed(generator) != seed(generator)
    assert seed(np.random.RandomState(1)) == seed(np.random.RandomState(1))
    assert len({seed(None) for _ in range(3)}) == 3
    with pytest.raises(ValueError, match="cannot be used to seed"):
        seed("7")


def test_values_as_settings() -> None:
    values = [None, True, 3, 0.5, "full", "a, b", [1, "x"], (2, 3), np.array([4.5]), np.float64(0.1)]
    texts = ["null", "true", "3", "0.5", "full", "'a, b'", "[1,x]", "[2,3]", "[4.5]", "0.1"]
    assert [written(value) for value in values] == texts
    parameters = {"batch": "mini", "missing": "error"}
    nested = overrides(parameters, {"batch": "full", "optimizer": {"lr": 0.1}, "seed": 5}, 0, True)
    assert nested[-3:] == ["batch=full", "optimizer.lr=0.1", "seed=5"]
    assert [item for item in nested if item.startswith(("batch", "seed"))] == ["batch=full", "seed=5"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"head": "gausian"}, "Did you mean 'gaussian'"),
        ({"head": "categorical"}, "expected: LikelihoodClassifier"),
        ({"head": "poisson"}, "PoissonHead cannot take"),
        ({"settings": ["modle.hidden=[3]"]}, "Did you mean 'model'"),
        ({"settings": {"optimizer": {"lrr": 1}}}, "Did you mean 'lr'"),
        ({"settings": 7}, "expected a list of texts"),
        ({"settings": ["data.missing=drop"]}, "is the parameter missing"),
        ({"settings": ["data.target=age"]}, "as an argument of fit"),
        ({"missing": "drop"}, "expected 'error' or 'impute'"),
        ({"model": "linear", "hidden": [3]}, "unknown setting model.hidden"),
        ({"max_epochs": 0}, "or a whole number of at least 1"),
        ({"random_state": "x"}, "cannot be used to seed"),
    ],
    ids=str,
)
def test_mistakes(parameters: dict[str, Any], message: str, frame: pd.DataFrame, number: pd.Series) -> None:
    with pytest.raises(ValueError, match=message):
        LikelihoodRegressor(**parameters).fit(frame, number)


def test_mistakes_in_classes(frame: pd.DataFrame, classes: np.ndarray, fitted: LikelihoodRegressor) -> None:
    with pytest.raises(ValueError, match="have no known order"):
        LikelihoodClassifier("ordinal").fit(frame, classes)
    with pytest.raises(ValueError, match="is for two classes, and y holds 3"):
        LikelihoodClassifier("bernoulli").fit(frame, classes)
    with pytest.raises(ValueError, match="expected: LikelihoodRegressor"):
        LikelihoodClassifier("gaussian").fit(frame, classes)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
        LikelihoodClassifier().fit(frame, classes, sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="sample_weight is zero in every row"):
        LikelihoodClassifier().fit(frame, classes, sample_weight=np.zeros(NUM_ROWS))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame.rename(columns={"age": "years"}))
    with pytest.raises(ValueError, match="level=2: expected"):
        fitted.predict_interval(frame, 2)
    with pytest.raises(ValueError, match="expected a probability between 0 and 1, or a list"):
        fitted.predict_quantile(frame, [1])
    with pytest.raises(ValueError, match=r"data\.weight=size and sample_weight= are given"):
        LikelihoodRegressor(settings=["data.weight=size"]).fit(frame, frame["age"], sample_weight=frame["size"])


def test_kinds_of_classes(frame: pd.DataFrame, classes: np.ndarray) -> None:
    order = ["b", "a", "c", "unused"]
    ordered = pd.Series(pd.Categorical(classes, order, ordered=True))
    model = LikelihoodClassifier("ordinal", **FEW).fit(frame, ordered)
    assert model.classes_.tolist() == ["b", "a", "c"]
    assert model.model_.distribution(frame.assign()).probs.numpy() == pytest.approx(model.predict_proba(frame))
    ends = model.predict_proba(frame)[frame["age"].to_numpy().argsort()][[0, -1]]
    assert ends[0, 0] != ends[1, 0]
    truth = model.predict_proba(frame)[np.arange(NUM_ROWS), [order.index(label) for label in classes]]
    assert model.score(frame, ordered) == pytest.approx(np.log(truth).mean())
    with pytest.raises(ValueError, match="y holds the class 'z'"):
        model.score(frame, np.full(NUM_ROWS, "z"))
    flags = LikelihoodClassifier("bernoulli", **FEW).fit(frame, classes == "a")
    assert flags.predict(frame).dtype == bool
    assert flags.predict_proba(frame).sum(1) == pytest.approx(np.ones(NUM_ROWS))
    codes = {"b": 10, "a": -1, "c": 3}
    numbered = LikelihoodClassifier(**FEW).fit(frame, [codes[label] for label in classes])
    assert numbered.classes_.tolist() == [-1, 3, 10]


def test_more_classes_than_a_number_may_have() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(240, 1)), np.arange(240) % 120
    assert len(LikelihoodClassifier(**FEW).fit(x, y).classes_) == 120


def test_several_targets_and_bounds(frame: pd.DataFrame, number: pd.Series) -> None:
    y = pd.DataFrame({"claims": number, "age": frame["size"]})
    model = LikelihoodRegressor("gaussian", **FEW).fit(frame, y)
    assert model.predict(frame).shape == (NUM_ROWS, 2)
    assert model.predict_interval(frame).shape == (NUM_ROWS, 2, 2)
    assert model.predict_quantile(frame, [0.1, 0.5, 0.9]).shape == (NUM_ROWS, 2, 3)
    table = model.set_output(transform="pandas").predict_interval(frame)
    assert table.columns.tolist() == ["claims_lower", "claims_upper", "age__lower", "age__upper"]
    column = LikelihoodRegressor(**FEW).fit(frame, number.to_numpy()[:, None])
    assert column.predict(frame).shape == (NUM_ROWS, 1)
    low = np.where(number < 0, -np.inf, number)
    bounds = np.stack([low, np.maximum(number, 0)], 1)
    censored = LikelihoodRegressor("censored", **FEW).fit(frame, bounds)
    assert censored.predict(frame).shape == (NUM_ROWS,)
    assert censored.predict_interval(frame).shape == (NUM_ROWS, 2)


def test_columns_with_other_roles(frame: pd.DataFrame, number: pd.Series) -> None:
    rng = np.random.default_rng(6)
    rows = frame.assign(trials=rng.integers(1, 9, NUM_ROWS))
    count = rng.binomial(rows["trials"], 0.4)
    model = LikelihoodRegressor("binomial", settings={"data.trials": "trials"}, **FEW).fit(rows, count)
    assert model.model_.features == list(frame.columns)
    share = model.predict(rows) / rows["trials"]
    assert model.predict(rows.assign(trials=10)) == pytest.approx(10 * share)
    formula = LikelihoodRegressor(model="linear", max_epochs=3, settings={"formula": "claims ~ age + text"})
    alike = formula.fit(frame, number).predict(frame.assign(age=0.0, text="u"))
    assert np.ptp(alike) == pytest.approx(0, abs=1e-12)


def test_missing_cells(frame: pd.DataFrame, number: pd.Series) -> None:
    holes = frame[["age", "size"]].to_numpy().copy()
    holes[3, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        LikelihoodRegressor(**FEW).fit(holes, number)
    with pytest.raises(ValueError, match="column 'age': 1, row 3"):
        LikelihoodRegressor(**FEW).fit(pd.DataFrame(holes, columns=["age", "size"]), number)
    model = LikelihoodRegressor(missing="impute", **FEW)
    assert sklearn.utils.get_tags(model).input_tags.allow_nan
    assert np.isfinite(model.fit(holes, number).predict(holes)).all()


def test_an_ensemble(frame: pd.DataFrame, number: pd.Series) -> None:
    settings = ["ensemble=seeds", "ensemble.members=2"]
    model = LikelihoodRegressor(settings=settings, **FEW).fit(frame, number)
    means = [LikelihoodRegressor(random_state=k, settings=["data.seed=0"], **FEW).fit(frame, number).predict(frame)
             for k in (0, 1)]  # fmt: skip
    assert model.predict(frame) == pytest.approx(np.mean(means, 0), rel=1e-9)
    assert (pickle.loads(pickle.dumps(model)).predict(frame) == model.predict(frame)).all()


def test_output_of_pandas(fitted: LikelihoodRegressor, frame: pd.DataFrame) -> None:
    model = pickle.loads(pickle.dumps(fitted)).set_output(transform="pandas")
    rows = frame.set_index(frame.index + 1000)
    table = model.predict_interval(rows)
    assert table.columns.tolist() == ["lower", "upper"]
    assert table.index.equals(rows.index)
    assert model.predict_quantile(rows, [0.1, 0.25]).columns.tolist() == ["quantile_0.1", "quantile_0.25"]
    assert isinstance(model.predict(rows), np.ndarray)
    assert isinstance(clone(model).fit(frame[["age"]], frame["size"]).predict_interval(frame[["age"]]), pd.DataFrame)
    assert isinstance(model.set_output(transform="default").predict_interval(rows), np.ndarray)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(fitted.predict_interval(rows), pd.DataFrame)
    with pytest.raises(ValueError, match="expected default, pandas, polars"):
        model.set_output(transform="arrow")


def test_pipelines_and_searches(frame: pd.DataFrame, number: pd.Series, classes: np.ndarray) -> None:
    scaled = ColumnTransformer([("scaled", StandardScaler(), ["age", "size"])], remainder="passthrough")
    pipe = make_pipeline(scaled.set_output(transform="pandas"), LikelihoodRegressor(**FEW))
    assert np.isfinite(cross_val_score(pipe, frame, number, cv=2)).all()
    assert pipe.fit(frame, number)[-1].feature_names_in_[0] == "scaled__age"
    grid = [
        {"head": ["gaussian", "laplace"], "prior": ["l2"], "prior_scale": [0.1]},
        {"settings": [["batch=full"], {"optimizer.lr": 0.02}]},
    ]
    search = GridSearchCV(LikelihoodRegressor(**FEW), grid, cv=2, refit=False).fit(frame, number)
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"].max())
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0
    calibrated = CalibratedClassifierCV(LikelihoodClassifier(**FEW), cv=2).fit(frame, classes)
    assert calibrated.predict_proba(frame).sum(1) == pytest.approx(np.ones(NUM_ROWS))
    probabilities = cross_val_predict(LikelihoodClassifier(**FEW), frame, classes, cv=2, method="predict_proba")
    assert probabilities.shape == (NUM_ROWS, 3)


def test_metadata_is_routed(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(8)
    x, years = frame[["age", "size"]], rng.uniform(1, 5, NUM_ROWS)
    count, weight = rng.poisson(years), rng.integers(1, 4, NUM_ROWS)
    model = LikelihoodRegressor("poisson", **FEW)
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(exposure=True, sample_weight=True, offset=False)
        model.set_score_request(exposure=True, sample_weight=True).set_predict_request(exposure=True)
        found = cross_val_score(model, x, count, cv=2, params={"exposure": years, "sample_weight": weight})
    for score, held in zip(found, (slice(0, 60), slice(60, 120)), strict=True):
        rest = np.setdiff1d(np.arange(NUM_ROWS), np.arange(NUM_ROWS)[held])
        part = clone(model).fit(x.iloc[rest], count[rest], sample_weight=weight[rest], exposure=years[rest])
        expected = part.score(x[held], count[held], sample_weight=weight[held], exposure=years[held])
        assert score == pytest.approx(expected, rel=1e-12)


def test_threads_do_not_disturb_each_other(frame: pd.DataFrame, number: pd.Series, fitted: LikelihoodRegressor) -> None:
    models = [LikelihoodRegressor(**FEW) for _ in range(3)]
    threads = [threading.Thread(target=one.fit, args=(frame, number)) for one in models]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for one in models:
        assert (one.predict(frame) == fitted.predict(frame)).all()


@pytest.mark.slow
def test_processes_of_joblib(frame: pd.DataFrame, number: pd.Series) -> None:
    found = [cross_val_score(LikelihoodRegressor(**FEW), frame, number, cv=2, n_jobs=jobs) for jobs in (1, 2)]
    assert (found[0] == found[1]).all()


@pytest.mark.slow
def test_it_learns(frame: pd.DataFrame, number: pd.Series, classes: np.ndarray) -> None:
    """With defaults: what scikit-learn's checks ask for by R² and accuracy, which are not the scores here."""
    assert r2_score(number, LikelihoodRegressor().fit(frame, number).predict(frame)) > 0.8
    assert accuracy_score(classes, LikelihoodClassifier().fit(frame, classes).predict(frame)) > 0.8


def test_a_run_that_is_not_kept_names_no_directory_of_its_own(fitted: LikelihoodRegressor, frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    assert "<not kept>" in repr(fitted.model_) and "/tmp" not in repr(fitted.model_)
    diverging = LikelihoodRegressor(settings=["optimizer=sgd", "optimizer.lr=1e12", "step.recoveries=0"], **FEW)
    with pytest.raises(NumericalError, match="training diverged") as caught:
        diverging.fit(x, y)
    assert "evaluate run=" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prior_scale": 1.0}, r"unknown setting prior\.scale[\s\S]*prior_scale=1\.0 stands for prior\.scale"),
        ({"model": "linear", "hidden": [3]}, r"hidden=\[3\] stands for model\.hidden"),
        ({"batch_size": 0}, r"batch_size=0 stands for batch\.size"),
        ({"max_epochs": -3}, r"max_epochs=-3 stands for trainer\.max_epochs"),
        ({"plugins": "mine"}, r"plugins='mine': expected a list of names"),
    ],
)
def test_an_error_names_the_parameter(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LikelihoodRegressor(**given).fit(np.eye(30, 2), np.arange(30.0))


def test_numbers_whose_squares_overflow_are_refused(frame: pd.DataFrame, number: pd.Series) -> None:
    with pytest.raises(ValueError, match=r"the features age hold [\s\S]*numbers up to 1e150"):
        LikelihoodRegressor(**FEW).fit(frame.assign(age=frame["age"] * 1e300), number)
    with pytest.raises(ValueError, match=r"column 'claims' .* holds [\s\S]*up to 1e\+100"):
        LikelihoodRegressor(**FEW).fit(frame, number * 1e300)


def test_a_column_has_the_exposure_where_predictions_get_none(frame: pd.DataFrame) -> None:
    count = np.random.default_rng(1).poisson(frame["size"])
    model = LikelihoodRegressor("poisson", settings={"data.exposure": "size"}, **FEW)
    found = cross_val_predict(model, frame, count, cv=2)
    assert found.shape == (NUM_ROWS,) and (found > 0).all()
    assert "size" not in model.fit(frame, count).model_.features


def test_weights_are_repeated_rows_where_nothing_is_random() -> None:
    """The check that is expected to fail by the random rows and batches of the default settings passes without them."""
    name = "check_sample_weight_equivalence_on_dense_data"
    assert name in EXPECTED_FAILED_CHECKS
    getattr(estimator_checks, name)("exact", LikelihoodRegressor(**EXACT))
