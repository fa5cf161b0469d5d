"""mlefw anova: tests of nested models against statsmodels and closed forms, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

import mlefw
from mlefw.cli import run
from mlefw.command import anova, baseline
from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.frame import as_arrow, offered
from mlefw.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

N = 90
RANDOM = np.random.default_rng(12)
G = RANDOM.choice(["a", "b", "c"], N)
FRAME = pd.DataFrame({"x": RANDOM.normal(size=N), "z": RANDOM.normal(size=N), "g": G, "w": RANDOM.integers(1, 4, N)})
ETA = 0.4 + 0.5 * FRAME["x"] + 0.3 * (G == "b")
FRAME["count"] = RANDOM.poisson(np.exp(ETA))
FRAME["number"] = ETA + RANDOM.normal(size=N)
FRAME["twice"] = 2 * FRAME["x"] + 3
SMALL = sm.add_constant(np.asarray(FRAME[["x"]]))
LARGE = np.column_stack([SMALL, FRAME["z"], G == "b", G == "c"])

Fitted = Callable[..., str]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Makes a run of `mlefw baseline`, once for each of its settings."""
    folder, known = tmp_path_factory.mktemp("anova"), dict[tuple[str, ...], str]()
    FRAME.to_csv(folder / "d.csv", index=False)

    def make(head: str, features: str, *settings: str) -> str:
        key = (head, features, *settings)
        if key not in known:
            known[key] = str(folder / f"r{len(known)}")
            target = "count" if head == "poisson" else "number"
            data = ("data=csv", f"data.path={folder / 'd.csv'}", f"data.target={target}", f"data.features={features}")
            assert run(["baseline", f"head={head}", *data, *settings, f"run_dir={known[key]}"]) == 0
        return known[key]

    return make


def between(*runs: str) -> dict[str, Any]:
    found: dict[str, Any] = anova.run(list(runs))["tests"][0]
    return found


def test_least_squares_has_the_between_statsmodels(fitted: Fitted) -> None:
    found = between(fitted("gaussian", "[x,z,g]"), fitted("gaussian", "[x]"))
    small, large = sm.OLS(FRAME["number"], SMALL).fit(), sm.OLS(FRAME["number"], LARGE).fit()
    r0, r1 = small.ssr, large.ssr
    f, p, df = large.compare_f_test(small)
    assert found["df"] == df == 3
    assert (found["f"]["statistic"], found["f"]["p_value"]) == pytest.approx((f, p), rel=1e-9)
    ratio, p, _ = large.compare_lr_test(small)
    assert (found["likelihood_ratio"]["statistic"], found["likelihood_ratio"]["p_value"]) == pytest.approx((ratio, p))
    assert found["likelihood_ratio"]["statistic"] == pytest.approx(N * math.log(r0 / r1), rel=1e-9)
    assert found["wald"]["statistic"] == pytest.approx(N * (r0 - r1) / r1, rel=1e-9)
    assert found["score"]["statistic"] == pytest.approx(N * (r0 - r1) / r0, rel=1e-9)


def test_counts_with_weights_and_robust_errors(fitted: Fitted) -> None:
    weighted = ("data.weight=w",)
    family = sm.families.Poisson()
    small, large = (
        sm.GLM(FRAME["count"], x, family=family, freq_weights=np.asarray(FRAME["w"])).fit(tol=1e-14)
        for x in (SMALL, LARGE)
    )
    runs = fitted("poisson", "[x]", *weighted), fitted("poisson", "[x,z,g]", *weighted)
    found = between(*runs)
    assert found["likelihood_ratio"]["statistic"] == pytest.approx(2 * (large.llf - small.llf), rel=1e-8)
    assert found["likelihood_ratio"]["p_value"] == pytest.approx(stats.chi2.sf(2 * (large.llf - small.llf), 3))
    params, cov = np.asarray(large.params)[2:], np.asarray(large.cov_params())[2:, 2:]
    assert found["wald"]["statistic"] == pytest.approx(params @ np.linalg.solve(cov, params), rel=1e-6)
    mean = np.exp(SMALL @ small.params)
    s, w = LARGE.T @ (FRAME["w"] * (FRAME["count"] - mean)), FRAME["w"] * mean
    information = LARGE.T @ (LARGE * np.asarray(w)[:, None])
    assert found["score"]["statistic"] == pytest.approx(s @ np.linalg.solve(information, s), rel=1e-8)
    # Under robust errors the Wald test alone is valid.
    robust = fitted("poisson", "[x,z,g]", *weighted, "baseline.standard_errors=sandwich")
    found = between(runs[0], robust)
    assert found.keys() == {"model", "against", "df", "wald"}
    inverse = np.linalg.inv(LARGE.T @ (LARGE * np.asarray(FRAME["w"] * large.mu)[:, None]))
    scores = LARGE * np.asarray(FRAME["count"] - large.mu)[:, None]
    cov = (inverse @ (scores.T @ (scores * np.asarray(FRAME["w"])[:, None])) @ inverse)[2:, 2:]
    assert found["wald"]["statistic"] == pytest.approx(params @ np.linalg.solve(cov, params), rel=1e-6)


def test_three_models_in_any_order_and_as_a_file(
    fitted: Fitted, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [fitted("gaussian", features) for features in ("[x,z,g]", "[x]", "[x,g]")]
    capfd.readouterr()
    assert run(["anova", f"runs=[{','.join(runs)}]", f"table={tmp_path / 'a.csv'}"]) == 0
    out = capfd.readouterr().out
    for words in ("1: ", "x + z + g", "LR chi2", "score chi2", "3 against 2", "85 degrees of freedom"):
        assert words in out
    found = pd.read_csv(tmp_path / "a.csv")
    rss = [sm.OLS(FRAME["number"], LARGE[:, c]).fit().ssr for c in ([0, 1], [0, 1, 3, 4], [0, 1, 2, 3, 4])]
    # As R's anova: the variance is that of the largest model.
    expected = [(rss[0] - rss[1]) / 2 / (rss[2] / 85), (rss[1] - rss[2]) / (rss[2] / 85)]
    np.testing.assert_allclose(found["f"][1:], expected, rtol=1e-8)
    np.testing.assert_allclose(found["f_p"][1:], stats.f.sf(expected, [2, 1], 85), rtol=1e-8)
    assert run(["anova", f"runs=[{','.join(runs)}]", f"table={tmp_path / 'a.csv'}"]) == 2


def test_from_python_of_runs_of_files_and_of_frames(fitted: Fitted, tmp_path: Path) -> None:
    runs = [fitted("gaussian", features) for features in ("[x,z,g]", "[x]")]
    found = mlefw.anova(runs[0], mlefw.load(runs[1]))
    pd.testing.assert_frame_equal(found, pd.DataFrame(anova.frame(anova.run(runs))), check_dtype=False)
    assert list(mlefw.anova(runs[0])["term"]) == ["x", "z", "g"]
    # The rows of a frame are nowhere but with the caller.
    for name, formula in (("a", "number ~ x"), ("b", "number ~ x + z + g")):
        config = read_settings("baseline", [f"formula={formula}", "data=frame"], [], ())
        with offered(rows=as_arrow(FRAME)):
            baseline.run(settings_of({**config, "run_dir": str(tmp_path / name)}), tmp_path / name)
    same = mlefw.anova(tmp_path / "a", tmp_path / "b", data=FRAME)
    for column in ("likelihood_ratio", "wald_p", "score", "f", "aic", "df"):
        np.testing.assert_allclose(same[column][1], found[column][1], rtol=1e-9)
    with pytest.raises(UsageError, match="training rows cannot be read again"):
        mlefw.anova(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match="no longer those of its estimate"):
        mlefw.anova(tmp_path / "a", tmp_path / "b", data=FRAME[::-1])


def test_a_shared_scale_is_nested_in_a_predicted_one(fitted: Fitted) -> None:
    """By the space of its columns: `twice` + 3 stands for `x`, and one scale for an intercept alone."""
    found = between(fitted("gaussian", "[twice]"), fitted("heteroscedastic", "[x,z]"))
    fit = sm.OLS(FRAME["number"], SMALL).fit()
    assert found["df"] == 3
    # The score test at the restricted fit, in closed form: orthogonal parts of location and log scale.
    e, s2 = fit.resid, fit.ssr / N
    wide = LARGE[:, :3]
    parts = wide.T @ e / s2, wide.T @ (e**2 / s2 - 1)
    gram = wide.T @ wide
    expected = parts[0] @ np.linalg.solve(gram / s2, parts[0]) + parts[1] @ np.linalg.solve(2 * gram, parts[1])
    assert found["score"]["statistic"] == pytest.approx(expected, rel=1e-6)


def test_terms_of_one_model(fitted: Fitted, capfd: pytest.CaptureFixture[str]) -> None:
    content = anova.run([fitted("gaussian", "[x,z,g]")])
    large = sm.OLS(FRAME["number"], LARGE).fit()
    found = {test["term"]: test for test in content["terms"]}
    test = large.f_test(np.eye(5)[3:])
    assert found["g"]["statistic"] == pytest.approx(float(test.fvalue), rel=1e-9)
    assert found["g"]["p_value"] == pytest.approx(float(test.pvalue), rel=1e-9)
    assert found["x"]["statistic"] == pytest.approx(large.tvalues.iloc[1] ** 2, rel=1e-9)
    assert (found["g"]["df"], found["g"]["df_resid"]) == (2, 85)
    capfd.readouterr()
    assert run(["anova", f"runs={fitted('gaussian', '[x,z,g]')}"]) == 0
    assert "loc: g" in capfd.readouterr().out


REFUSED = [
    (("gaussian", "[x]"), ("poisson", "[x,z]"), "heads differ"),
    (("gaussian", "[x]"), ("gaussian", "[z,g]"), "columns of loc are not in the space"),
    (("gaussian", "[x]"), ("gaussian", "[twice]"), "one model"),
    (("gaussian", "[x]"), ("gaussian", "[x,z]", "data.weight=w"), "weights differ"),
    (("gaussian", "[x]", "data.offset=z"), ("gaussian", "[x,g]"), "offsets differ"),
    (("gaussian", "[x]", "data.test_fraction=0.1"), ("gaussian", "[x,z]"), "rows differ"),
    (("gaussian", "[x]"), ("gaussian", "[x,z]", "prior=l2"), "a MAP has no"),
]


@pytest.mark.parametrize(("one", "other", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_is_not_nested_is_refused_with_the_reason(
    fitted: Fitted, one: tuple[str, ...], other: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        anova.run([fitted(*one), fitted(*other)])


def test_rows_that_have_changed_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        FRAME.to_csv(tmp_path / "d.csv", index=False)
        data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=number", "data.features=[x]")
        assert run(["baseline", *data, f"run_dir={tmp_path / name}"]) == 0
    FRAME.assign(number=FRAME["number"] + 1).to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(UsageError, match="no longer those of its estimate"):
        anova.run([str(tmp_path / "a"), str(tmp_path / "b")])
    (tmp_path / "d.csv").unlink()
    with pytest.raises(UsageError, match="cannot be read again"):
        anova.run([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(UsageError, match="no such file or directory"):
        anova.run([str(tmp_path / "c"), str(tmp_path / "a")])
