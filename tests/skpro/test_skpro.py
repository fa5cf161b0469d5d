"""The adaptor to skpro, held to skpro's own checks, and to scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from skpro.metrics import LogLoss
from skpro.utils.estimator_checks import check_estimator

from mlefw.sklearn import LikelihoodRegressor
from mlefw.skpro import LikelihoodProbaRegressor, Predictive

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("kind", [LikelihoodProbaRegressor, Predictive])
def test_the_checks_of_skpro(kind: type) -> None:
    found = check_estimator(kind, verbose=False)
    assert len(found) > 50
    assert {name: result for name, result in found.items() if result != "PASSED"} == {}


@pytest.fixture(scope="module")
def x() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["a", "b"])


def test_a_number(x: pd.DataFrame) -> None:
    y = pd.DataFrame({"y": x["a"] + np.random.default_rng(1).normal(size=80)})
    model = LikelihoodProbaRegressor(LikelihoodRegressor(max_epochs=5)).fit(x, y)
    plain = LikelihoodRegressor(max_epochs=5).fit(x, y["y"])
    loc, scale = plain.predict(x), plain.predict_distribution(x).stddev.numpy()
    found = model.predict_proba(x)
    assert found.log_pdf(y)["y"].to_numpy() == pytest.approx(stats.norm.logpdf(y["y"], loc, scale), rel=1e-9)
    assert found.cdf(y)["y"].to_numpy() == pytest.approx(stats.norm.cdf(y["y"], loc, scale), rel=1e-9)
    assert found.ppf(0.3)["y"].to_numpy() == pytest.approx(stats.norm.ppf(0.3, loc, scale), rel=1e-9)
    assert found.var()["y"].to_numpy() == pytest.approx(scale**2, rel=1e-12)
    assert found.iloc[[3, 5]].mean()["y"].to_numpy() == pytest.approx(loc[[3, 5]], rel=1e-12)
    assert float(found.iloc[4, 0].mean()) == pytest.approx(loc[4], rel=1e-12)
    assert LogLoss()(y, found) == pytest.approx(-plain.score(x, y["y"]), rel=1e-9)
    interval = model.predict_interval(x, coverage=0.8).to_numpy()
    assert interval == pytest.approx(plain.predict_interval(x, 0.8), rel=1e-9)


def test_counts_and_several_targets(x: pd.DataFrame) -> None:
    count = pd.DataFrame({"n": np.random.default_rng(2).poisson(np.exp(x["a"]))})
    model = LikelihoodProbaRegressor(LikelihoodRegressor("poisson", max_epochs=5)).fit(x, count)
    found, rate = model.predict_proba(x), model.predict(x)["n"]
    assert found.get_tag("distr:measuretype") == "discrete"
    assert found.pmf(count)["n"].to_numpy() == pytest.approx(stats.poisson.pmf(count["n"], rate), rel=1e-9)
    assert (found.pmf(-1.0) == 0).all().all()
    two = pd.DataFrame({"u": x["a"], "v": x["b"]})
    both = LikelihoodProbaRegressor(LikelihoodRegressor(max_epochs=5)).fit(x, two)
    assert both.predict_proba(x).iloc[:, [1]].mean().columns.tolist() == ["v"]
    assert both.predict_proba(x).iloc[:, [1]].mean()["v"].tolist() == both.predict(x)["v"].tolist()
