"""Intervals of the mean from the covariance of the coefficients: statsmodels, and the delta method written out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.trained import load

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(120, 2))
DESIGN = sm.add_constant(X)
ETA = 0.3 + X @ [0.6, -0.4]
NEW = RANDOM.normal(size=(7, 2)) * 2
LEVEL = 0.95
Z = stats.norm.isf((1 - LEVEL) / 2)
TARGETS: dict[str, Any] = {
    "gaussian": 10 + 4 * ETA + RANDOM.normal(size=120),
    "poisson": RANDOM.poisson(np.exp(ETA)),
    "bernoulli": (RANDOM.random(120) < 1 / (1 + np.exp(-2 * ETA))).astype(int),
    "lognormal": np.exp(ETA + 0.7 * RANDOM.normal(size=120)),
    "categorical": np.array(["a", "b", "c"])[
        (np.stack([np.zeros(120), 2 * ETA, X[:, 0]], 1) + RANDOM.gumbel(size=(120, 3))).argmax(1)
    ],
}


def estimated(folder: Path, head: str, *settings: str) -> Any:
    """The exact estimate of a head, as a model."""
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": TARGETS[head]})
    frame.to_csv(folder / "d.csv", index=False)
    data = ("data=csv", f"data.path={folder / 'd.csv'}", "data.target=y", *settings)
    assert run(["baseline", f"head={head}", *data, f"run_dir={folder / 'b'}"]) == 0
    return load(folder / "b")


def predicted(model: Any) -> pd.DataFrame:
    found: pd.DataFrame = model.predict(pd.DataFrame({"a": NEW[:, 0], "b": NEW[:, 1]}), level=LEVEL)
    return found


@pytest.mark.parametrize("head", ["gaussian", "poisson", "bernoulli"])
def test_of_one_eta_they_are_those_of_statsmodels(head: str, tmp_path: Path) -> None:
    model = estimated(tmp_path, head)
    found, new = predicted(model), sm.add_constant(NEW)
    if head == "gaussian":
        ends = sm.OLS(TARGETS[head], DESIGN).fit().get_prediction(new).conf_int()
        names = ["mean"]
    else:
        family = {"poisson": sm.families.Poisson(), "bernoulli": sm.families.Binomial()}[head]
        ends = sm.GLM(TARGETS[head], DESIGN, family=family).fit(tol=1e-14).get_prediction(new).conf_int()
        names = ["mean"] if "mean" in found else ["prob_1"]
    np.testing.assert_allclose(found[[f"{names[0]}_lower", f"{names[0]}_upper"]], ends, rtol=1e-6)
    frame = model.tidy()
    assert list(frame["term"])[:3] == ["(intercept)", "a", "b"]
    assert model.glance()["nobs"][0] == 120


def test_a_mean_of_two_etas_is_by_the_delta_method_of_its_logarithm(tmp_path: Path) -> None:
    found = predicted(estimated(tmp_path, "lognormal"))
    fit = sm.OLS(np.log(TARGETS["lognormal"]), DESIGN).fit()
    n, variance = 120, fit.ssr / 120
    new = sm.add_constant(NEW)
    # log mean = x'beta + sigma²/2; the maximum likelihood estimates have covariances sigma² (X'X)⁻¹ and 2 sigma⁴ / n.
    error = np.sqrt((new @ (variance * np.linalg.inv(DESIGN.T @ DESIGN)) * new).sum(1) + variance**2 / (2 * n))
    middle = new @ fit.params + variance / 2
    np.testing.assert_allclose(found["mean"], np.exp(middle), rtol=1e-8)
    np.testing.assert_allclose(found["mean_lower"], np.exp(middle - Z * error), rtol=1e-6)
    np.testing.assert_allclose(found["mean_upper"], np.exp(middle + Z * error), rtol=1e-6)


def test_probabilities_are_by_the_delta_method_of_their_log_odds(tmp_path: Path) -> None:
    found = predicted(estimated(tmp_path, "categorical"))
    codes = pd.Series(TARGETS["categorical"]).map({"a": 0, "b": 1, "c": 2})
    fit = sm.MNLogit(codes, DESIGN).fit(disp=0, tol=1e-12, maxiter=100)
    new, step = sm.add_constant(NEW), 1e-6

    def logits(params: np.ndarray) -> np.ndarray:
        eta = np.column_stack([np.zeros(len(new)), new @ params.reshape(2, 3).T])
        p = np.exp(eta) / np.exp(eta).sum(1, keepdims=True)
        return np.log(p / (1 - p))

    flat = np.asarray(fit.params).T.reshape(-1)
    covariance = np.asarray(fit.cov_params())
    slopes = np.stack([(logits(flat + h) - logits(flat - h)) / (2 * step) for h in step * np.eye(6)], -1)
    error = np.sqrt(np.einsum("nki,ij,nkj->nk", slopes, covariance, slopes))
    for k, label in enumerate("abc"):
        for sign, end in ((-1, "lower"), (1, "upper")):
            expected = 1 / (1 + np.exp(-(logits(flat)[:, k] + sign * Z * error[:, k])))
            np.testing.assert_allclose(found[f"prob_{label}_{end}"], expected, rtol=1e-5)


@pytest.mark.parametrize(("head", "target"), [("multivariate_gaussian", "[y,v]"), ("censored", "[y,u]")])
def test_of_several_columns_of_the_target(head: str, target: str, tmp_path: Path) -> None:
    """Bounds of one number have an interval of its mean, several numbers have none, and both can be predicted."""
    y = TARGETS["gaussian"]
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y, "v": X[:, 0] ** 2, "u": y})
    frame.to_csv(tmp_path / "d.csv", index=False)
    data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", f"data.target={target}", f"run_dir={tmp_path / 'b'}")
    assert run(["baseline", f"head={head}", "data.features=[a,b]", *data]) == 0
    found = predicted(load(tmp_path / "b"))
    if head == "multivariate_gaussian":
        assert "y_mean" in found
        assert not any("mean_lower" in name for name in found)
    else:
        ols = sm.OLS(y, DESIGN).fit()
        half = Z * np.sqrt((sm.add_constant(NEW) @ ols.cov_params() * sm.add_constant(NEW)).sum(1) * 117 / 120)
        np.testing.assert_allclose(found["mean_upper"], sm.add_constant(NEW) @ ols.params + half, rtol=1e-6)


def test_a_run_predicts_by_the_estimate_beside_its_network(tmp_path: Path) -> None:
    estimated(tmp_path, "poisson")
    few = ("trainer.max_epochs=1", "model.hidden=[4]", "report=false", "logger=none", "plots=false")
    data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "data.test_fraction=0")
    assert run(["train", "head=poisson", *data, "data.validation_fraction=0", *few, f"run_dir={tmp_path / 'r'}"]) == 0
    trained = load(tmp_path / "r")
    new = pd.DataFrame({"a": NEW[:, 0], "b": NEW[:, 1]})
    own = trained.predict(new)
    assert "mean_lower" not in own
    exact, same = trained.predict(new, exact=True), load(tmp_path / "b").predict(new)
    pd.testing.assert_frame_equal(exact, same, rtol=1e-9)
    assert np.abs(own["mean"] - exact["mean"]).max() > 1e-3
    new.to_csv(tmp_path / "new.csv", index=False)
    given = (f"run={tmp_path / 'r'}", f"data.path={tmp_path / 'new.csv'}", f"output={tmp_path / 'p.csv'}")
    assert run(["predict", *given, "exact=true"]) == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["mean_upper"], exact["mean_upper"], rtol=1e-12)
    with pytest.raises(UsageError, match="uncertainty"):
        trained.predict(new, exact=True, uncertainty="laplace")
    with pytest.raises(UsageError, match="one run"):
        load([tmp_path / "r", tmp_path / "b"]).predict(new, exact=True)


CLUSTER, TIME = np.arange(120) % 11, RANDOM.permutation(120)


def products(kind: str, scores: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle of the sandwich of scores (n, p), and the half width of an interval in standard errors."""
    if kind == "hc1":
        return scores.T @ scores * 120 / 117, Z
    if kind == "cluster":
        sums = np.stack([scores[k == CLUSTER].sum(0) for k in range(11)])
        return sums.T @ sums * 11 / 10, stats.t.isf((1 - LEVEL) / 2, 10)
    ordered, total = scores[np.argsort(TIME)], scores.T @ scores
    for lag in (1, 2, 3):
        product = ordered[lag:].T @ ordered[:-lag]
        total = total + (1 - lag / 4) * (product + product.T)
    return total, Z


@pytest.mark.filterwarnings("ignore:.*(clusters of column|times of column)")
@pytest.mark.parametrize(
    ("kind", "settings"), [("hc1", ()), ("cluster", ("data.cluster=g",)), ("hac", ("data.time=t", "baseline.lag=3"))]
)
def test_they_have_the_errors_that_were_asked_for(kind: str, settings: tuple[str, ...], tmp_path: Path) -> None:
    """As `vcovHC`, `vcovCL` and `NeweyWest` of R's sandwich, here written out."""
    y = TARGETS["poisson"]
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y, "g": CLUSTER, "t": TIME})
    frame.to_csv(tmp_path / "d.csv", index=False)
    data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "data.features=[a,b]", *settings)
    given = (*data, f"baseline.standard_errors={kind}", f"run_dir={tmp_path / 'b'}")
    assert run(["baseline", "head=poisson", *given]) == 0
    found, new = predicted(load(tmp_path / "b")), sm.add_constant(NEW)
    beta = sm.GLM(y, DESIGN, family=sm.families.Poisson()).fit(tol=1e-14).params
    mean = np.exp(DESIGN @ beta)
    middle, quantile = products(kind, DESIGN * (y - mean)[:, None])
    bread = np.linalg.inv(DESIGN.T @ (DESIGN * mean[:, None]))
    error = np.sqrt(((new @ bread @ middle @ bread) * new).sum(1))
    for end, sign in (("lower", -1), ("upper", 1)):
        np.testing.assert_allclose(found[f"mean_{end}"], np.exp(new @ beta + sign * quantile * error), rtol=1e-6)
