"""`baseline.json`: coefficients in original units, their errors, tests and intervals, against statsmodels."""

import json
import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from exact_oracles import Sample, data, sample, varied
from exact_solving import solve
from scipy import stats

from mlefw.report.coefficient_table import baseline_content

KEYS = ("estimate", "std_error", "z", "p_value", "ci_low", "ci_high")


def content_of(head: str, of: Sample, labels: list[str] | None = None, kind: str = "default", **of_solve: Any) -> dict:
    return baseline_content(solve(head, of, **of_solve), list(of.names), labels, kind)


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {key: np.array([row[key] for row in rows]) for key in KEYS}


def check(rows: list[dict[str, Any]], params: Any, bse: Any, statistic: Any, p: Any, interval: Any) -> None:
    found = columns(rows)
    np.testing.assert_allclose(found["estimate"], params, rtol=1e-6)
    np.testing.assert_allclose(found["std_error"], bse, rtol=1e-6)
    np.testing.assert_allclose(found["z"], statistic, rtol=1e-6)
    np.testing.assert_allclose(found["p_value"], p, rtol=1e-4, atol=1e-300)
    low, high = np.asarray(interval).reshape(-1, 2).T
    np.testing.assert_allclose(found["ci_low"], low, rtol=1e-5)
    np.testing.assert_allclose(found["ci_high"], high, rtol=1e-5)


@pytest.mark.parametrize("name", ["longley", "stackloss", "scotland", "diabetes"])
def test_least_squares_uses_t(name: str) -> None:
    of = data(name)
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit(method="qr")
    content = content_of("gaussian", of)
    check(content["coefficients"]["loc"], fit.params, fit.bse, fit.tvalues, fit.pvalues, fit.conf_int())
    assert "t quantiles" in content["standard_errors"]
    assert content["num_parameters"] == of.x.shape[1] + 2
    # statsmodels counts no scale.
    assert content["aic"] == pytest.approx(fit.aic + 2, rel=1e-9)
    assert content["bic"] == pytest.approx(fit.bic + math.log(len(of.y)), rel=1e-9)


@pytest.mark.parametrize("name", ["spector", "fair"])
def test_logistic_regression_uses_the_normal(name: str) -> None:
    of = data(name)
    fit = sm.Logit(of.y, sm.add_constant(of.x)).fit(tol=1e-12, maxiter=100, disp=0)
    content = content_of("bernoulli", of)
    check(content["coefficients"]["logits"], fit.params, fit.bse, fit.tvalues, fit.pvalues, fit.conf_int())
    assert content["aic"] == pytest.approx(fit.aic, rel=1e-9)
    assert content["bic"] == pytest.approx(fit.bic, rel=1e-9)


def test_counts_with_exposure_and_weights() -> None:
    of = varied(data("cpunish"), "weight and offset")
    model = sm.GLM(of.y, sm.add_constant(of.x), sm.families.Poisson(), offset=of.offset, freq_weights=of.weight)
    fit = model.fit(tol=1e-15, maxiter=200)
    content = content_of("poisson", of)
    check(content["coefficients"]["rate"], fit.params, fit.bse, fit.tvalues, fit.pvalues, fit.conf_int())
    assert content["log_likelihood"] == pytest.approx(fit.llf, rel=1e-10)
    assert content["num_rows"] == len(of.y)
    assert content["population"] == of.weight.sum()


def test_classes_are_contrasted_with_the_first() -> None:
    of = data("anes96")
    fit = sm.MNLogit(of.y, sm.add_constant(of.x)).fit(tol=1e-12, maxiter=100, disp=0)
    labels = [f"party {k}" for k in range(7)]
    content = content_of("categorical", of, labels)
    assert list(content["coefficients"]) == labels[1:]
    for k, label in enumerate(labels[1:]):
        found = columns(content["coefficients"][label])
        np.testing.assert_allclose(found["estimate"], fit.params[:, k], rtol=1e-6)
        np.testing.assert_allclose(found["std_error"], fit.bse[:, k], rtol=1e-6)
        np.testing.assert_allclose(found["p_value"], fit.pvalues[:, k], rtol=1e-4)
    assert content["aic"] == pytest.approx(fit.aic, rel=1e-9)


def test_two_classes_are_a_logistic_regression() -> None:
    of = data("spector")
    binary = content_of("bernoulli", of)["coefficients"]["logits"]
    labels = content_of("categorical", of, ["no", "yes"])["coefficients"]["yes"]
    for key in KEYS:
        np.testing.assert_allclose(columns(labels)[key], columns(binary)[key], rtol=1e-6)


TABLES = [
    ("gaussian", "longley", ["loc"]),
    ("gaussian_fixed", "diabetes", ["loc"]),
    ("laplace", "stackloss", ["loc"]),
    ("bernoulli", "spector", ["logits"]),
    ("poisson", "cpunish", ["rate"]),
    ("heteroscedastic", "engel", ["loc", "scale"]),
]


@pytest.mark.parametrize("tau", [None, 0.5])
@pytest.mark.parametrize(("head", "name", "titles"), TABLES)
def test_original_features_times_coefficients_is_eta(
    head: str, name: str, titles: list[str], tau: float | None
) -> None:
    """The mean NLL of the table itself, by densities of scipy on raw features, is the one the solver states."""
    of = varied(data(name), "weight and offset")
    content = content_of(head, of, tau=tau, scale=2.0)
    design = np.column_stack([np.ones(len(of.y)), of.x])
    etas = [design @ columns(content["coefficients"][title])["estimate"] for title in titles]
    first = etas[0] + of.offset
    if head == "poisson":
        logs = stats.poisson.logpmf(of.y, np.exp(first))
    elif head == "bernoulli":
        logs = -np.logaddexp(0, -(2 * of.y - 1) * first)
    else:
        shared = content["coefficients"].get("scale", [{"estimate": 2.0}])[0]["estimate"]
        scale = np.exp(etas[1]) if head == "heteroscedastic" else shared
        logs = (stats.laplace if head == "laplace" else stats.norm).logpdf(of.y, first, scale)
    assert content["nll_nats"] == pytest.approx(-float(of.weight @ logs / of.weight.sum()), rel=1e-8)


def test_a_shared_scale_and_its_error() -> None:
    of = data("stackloss")
    n = len(of.y)
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit()
    sigma = math.sqrt(fit.ssr / n)
    [row] = content_of("gaussian", of)["coefficients"]["scale"]
    assert row["name"] == "(shared)"
    assert row["estimate"] == pytest.approx(sigma, rel=1e-9)
    assert row["std_error"] == pytest.approx(sigma / math.sqrt(2 * n), rel=1e-9)
    assert "p_value" not in row
    [row] = content_of("laplace", of)["coefficients"]["scale"]
    lad = sm.QuantReg(of.y, sm.add_constant(of.x)).fit(q=0.5, max_iter=5000, p_tol=1e-10)
    assert row["estimate"] == pytest.approx(np.abs(lad.resid).mean(), rel=1e-6)
    assert row["std_error"] == pytest.approx(row["estimate"] / math.sqrt(n), rel=1e-9)


def test_kinds_of_information() -> None:
    of = data("stackloss")
    n, p = len(of.y), of.x.shape[1] + 1
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit()
    for kind in ("observed", "expected"):
        content = content_of("gaussian", of, kind=kind)
        assert content["standard_errors"] == f"{kind} information"
        found = columns(content["coefficients"]["loc"])
        np.testing.assert_allclose(found["std_error"], fit.bse * math.sqrt((n - p) / n), rtol=1e-9)
        half = stats.norm.isf(0.025) * found["std_error"]
        np.testing.assert_allclose(found["ci_high"] - found["estimate"], half, rtol=1e-9)


def test_expected_information_of_a_predicted_scale() -> None:
    of = data("engel")
    content = content_of("heteroscedastic", of, kind="expected")
    design = sm.add_constant(of.x)
    scale = np.exp(design @ columns(content["coefficients"]["scale"])["estimate"])
    loc = np.sqrt(np.diag(np.linalg.inv(design.T @ (design / scale[:, None] ** 2))))
    log_scale = np.sqrt(np.diag(np.linalg.inv(2 * design.T @ design)))
    np.testing.assert_allclose(columns(content["coefficients"]["loc"])["std_error"], loc, rtol=1e-8)
    np.testing.assert_allclose(columns(content["coefficients"]["scale"])["std_error"], log_scale, rtol=1e-8)


def test_observed_information_of_least_absolute_deviations_is_none() -> None:
    content = content_of("laplace", data("stackloss"), kind="observed")
    assert content["standard_errors"].startswith("none")
    assert all("std_error" not in row for row in content["coefficients"]["loc"])


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_prior_narrows_to_the_posterior(tau: float) -> None:
    of = data("spector")
    z = np.column_stack([np.ones(len(of.y)), (of.x - of.x.mean(0)) / of.x.std(0)])
    rotation = np.diag(np.r_[1.0, 1 / of.x.std(0)])
    rotation[0, 1:] = -of.x.mean(0) / of.x.std(0)
    content = content_of("bernoulli", of, tau=tau)
    found = columns(content["coefficients"]["logits"])
    mu = 1 / (1 + np.exp(-sm.add_constant(of.x) @ found["estimate"]))
    information = z.T @ (z * (mu * (1 - mu))[:, None]) + np.diag([0, *[tau**-2] * 3])
    expected = np.sqrt(np.diag(rotation @ np.linalg.inv(information) @ rotation.T))
    np.testing.assert_allclose(found["std_error"], expected, rtol=1e-8)
    assert "posterior" in content["standard_errors"]
    assert "aic" not in content


def test_units_of_features_and_target() -> None:
    of = data("stackloss")
    factors, moves = np.array([1e3, 1e-3, 1.0]), np.array([0.0, 5.0, -70.0])
    plain = columns(content_of("gaussian", of)["coefficients"]["loc"])
    changed = sample(of.x * factors + moves, 100 * of.y + 7, of.names)
    found = columns(content_of("gaussian", changed)["coefficients"]["loc"])
    np.testing.assert_allclose(found["estimate"][1:], 100 * plain["estimate"][1:] / factors, rtol=1e-9)
    np.testing.assert_allclose(found["std_error"][1:], 100 * plain["std_error"][1:] / factors, rtol=1e-9)
    np.testing.assert_allclose(found["z"][1:], plain["z"][1:], rtol=1e-9)


def test_dropped_columns_are_named_and_absent() -> None:
    of = data("spector")
    wide = sample(
        np.column_stack([of.x[:, :1], np.ones(32), of.x, of.x.sum(1)]), of.y, ("a", "one", "b", "c", "d", "e")
    )
    content = content_of("bernoulli", wide)
    assert content["dropped"] == ["one", "b", "e"]
    fit = sm.Logit(of.y, sm.add_constant(of.x)).fit(tol=1e-12, maxiter=100, disp=0)
    rows = content["coefficients"]["logits"]
    assert [row["name"] for row in rows] == ["(intercept)", "a", "c", "d"]
    np.testing.assert_allclose(columns(rows)["estimate"], fit.params, rtol=1e-6)
    np.testing.assert_allclose(columns(rows)["std_error"], fit.bse, rtol=1e-6)
    assert content["num_parameters"] == 4
    assert content["aic"] == pytest.approx(fit.aic, rel=1e-9)


@pytest.mark.parametrize(("head", "name"), [("bernoulli", "breast_cancer"), ("categorical", "iris")])
def test_an_estimate_that_does_not_exist_has_no_table(head: str, name: str) -> None:
    content = content_of(head, data(name), ["a", "b", "c"] if head == "categorical" else None)
    assert not content["exists"]
    assert content["reason"]
    assert "coefficients" not in content
    assert "log_likelihood" not in content
    assert content["nll_infimum"] >= 0


@pytest.mark.parametrize(("head", "name", "titles"), TABLES)
def test_the_content_is_strict_json(head: str, name: str, titles: list[str]) -> None:
    content = content_of(head, data(name))
    assert set(titles) <= set(content["coefficients"])
    assert json.loads(json.dumps(content, allow_nan=False)) == content
