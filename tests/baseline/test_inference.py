"""Standard errors and statistics of fit against statsmodels, which gets each row as often as its weight says."""

import math
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import Sample, data, sample, varied
from exact_solving import HEADS, new_head, problem_of, solve
from scipy import stats

from mlefw.baseline.linear import solve_null
from mlefw.head.base import FactorizedHead
from mlefw.report.coefficient_table import baseline_content

KEY = {"bernoulli": "logits", "poisson": "rate"}


def content_of(head: str, of: Sample, kind: str = "default", **of_solve: Any) -> dict[str, Any]:
    solution = solve(head, of, **of_solve)
    null = solve_null(problem_of(head, of, scale=of_solve.get("scale", 1.0)))
    labels = [str(k) for k in range(int(of.y.max()) + 1)] if head == "categorical" else None
    return baseline_content(solution, list(of.names), labels, kind, null)


def column(rows: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows])


LEAST_SQUARES = ["longley", "stackloss", "scotland", "engel", "diabetes"]


@pytest.mark.parametrize("variant", ["plain", "weight", "weight and offset"])
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_sandwich_of_least_squares(name: str, variant: str) -> None:
    of = varied(data(name), variant)
    x, y, offset = of.repeated()
    fit = sm.OLS(y - offset, sm.add_constant(x)).fit(method="qr")
    for kind, expected in (("sandwich", fit.HC0_se), ("hc0", fit.HC0_se), ("hc1", fit.HC1_se)):
        content = content_of("gaussian", of, kind)
        assert content["standard_errors"] == f"sandwich ({'HC1' if kind == 'hc1' else 'HC0'})"
        rows = content["coefficients"]["loc"]
        np.testing.assert_allclose(column(rows, "std_error"), expected, rtol=1e-7)
        # A sandwich is asymptotic: its quantiles are normal.
        z = column(rows, "z")
        np.testing.assert_allclose(column(rows, "p_value"), 2 * stats.norm.sf(np.abs(z)), rtol=1e-9, atol=1e-300)


def test_sandwich_of_a_given_scale_is_that_of_a_learnt_one() -> None:
    of = data("stackloss")
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit()
    rows = content_of("gaussian_fixed", of, "sandwich", scale=3.7)["coefficients"]["loc"]
    np.testing.assert_allclose(column(rows, "std_error"), fit.HC0_se, rtol=1e-9)


COUNTS = [("cpunish", "plain"), ("cpunish", "weight and offset"), ("randhie", "offset")]


@pytest.mark.parametrize(("name", "variant"), COUNTS)
def test_poisson_regression(name: str, variant: str) -> None:
    of = varied(data(name), variant)
    x, y, offset = of.repeated()
    model = sm.GLM(y, sm.add_constant(x), sm.families.Poisson(), offset=offset)
    fit = model.fit(tol=1e-14, maxiter=200)
    content = content_of("poisson", of)
    check_totals(content, fit)
    assert content["deviance"] == pytest.approx(fit.deviance, rel=1e-9)
    assert content["null_deviance"] == pytest.approx(fit.null_deviance, rel=1e-9)
    assert content["pearson_chi2"] == pytest.approx(fit.pearson_chi2, rel=1e-8)
    assert content["dispersion"] == pytest.approx(fit.pearson_chi2 / fit.df_resid, rel=1e-8)
    assert content["mcfadden_r2"] == pytest.approx(fit.pseudo_rsquared("mcf"), rel=1e-8)
    assert content["cox_snell_r2"] == pytest.approx(fit.pseudo_rsquared("cs"), rel=1e-8)
    robust = model.fit(tol=1e-14, maxiter=200, cov_type="HC0").bse
    rows = content_of("poisson", of, "sandwich")["coefficients"]["rate"]
    np.testing.assert_allclose(column(rows, "std_error"), robust, rtol=1e-7)


def check_totals(content: dict[str, Any], fit: Any) -> None:
    for ours, theirs in (("log_likelihood", "llf"), ("null_log_likelihood", "llnull"), ("aic", "aic")):
        assert content[ours] == pytest.approx(getattr(fit, theirs), rel=1e-9)
    bic = -2 * fit.llf + math.log(content["population"]) * len(np.ravel(fit.params))
    assert content["bic"] == pytest.approx(bic, rel=1e-9)
    assert content["df_resid"] == fit.df_resid
    assert content["lr_chi2"] == pytest.approx(2 * (fit.llf - fit.llnull), rel=1e-8)
    assert content["lr_df"] == fit.df_model
    assert content["lr_p_value"] == pytest.approx(stats.chi2.sf(content["lr_chi2"], fit.df_model), rel=1e-9)


@pytest.mark.parametrize("variant", ["plain", "weight"])
@pytest.mark.parametrize("name", ["spector", "fair", "iris_12"])
def test_logistic_regression(name: str, variant: str) -> None:
    of = varied(data(name), variant)
    x, y, _ = of.repeated()
    model = sm.Logit(y, sm.add_constant(x))
    settings = {"tol": 1e-10, "maxiter": 200, "disp": 0}
    fit = model.fit(**settings)
    content = content_of("bernoulli", of)
    check_totals(content, fit)
    assert content["lr_p_value"] == pytest.approx(fit.llr_pvalue, rel=1e-6)
    assert content["mcfadden_r2"] == pytest.approx(fit.prsquared, rel=1e-8)
    assert content["deviance"] == pytest.approx(-2 * fit.llf, rel=1e-9)
    assert "pearson_chi2" not in content
    robust = model.fit(cov_type="HC0", **settings).bse
    rows = content_of("bernoulli", of, "sandwich")["coefficients"]["logits"]
    np.testing.assert_allclose(column(rows, "std_error"), robust, rtol=1e-6)


def test_grouped_trials_as_weights() -> None:
    """Pass and fail rows of star98: a binomial GLM in two weighted rows for each district."""
    of = data("star98")
    design = sm.add_constant(of.x)
    model = sm.GLM(of.y, design, sm.families.Binomial(), freq_weights=of.weight)
    fit = model.fit(tol=1e-14, maxiter=200)
    content = content_of("bernoulli", of)
    assert content["log_likelihood"] == pytest.approx(fit.llf, rel=1e-9)
    assert content["null_deviance"] == pytest.approx(fit.null_deviance, rel=1e-9)
    assert content["df_resid"] == fit.df_resid
    rows = content["coefficients"]["logits"]
    np.testing.assert_allclose(column(rows, "std_error"), fit.bse, rtol=1e-6)


def test_logistic_regression_with_an_offset_in_the_null_model() -> None:
    of = varied(data("spector"), "offset")
    fit = sm.GLM(of.y, sm.add_constant(of.x), sm.families.Binomial(), offset=of.offset).fit(tol=1e-14, maxiter=200)
    content = content_of("bernoulli", of)
    assert content["null_deviance"] == pytest.approx(fit.null_deviance, rel=1e-9)
    assert content["deviance"] == pytest.approx(fit.deviance, rel=1e-9)


def test_multinomial_regression() -> None:
    of = data("anes96")
    model = sm.MNLogit(of.y, sm.add_constant(of.x))
    settings = {"tol": 1e-10, "maxiter": 200, "disp": 0}
    fit = model.fit(**settings)
    content = content_of("categorical", of)
    check_totals(content, fit)
    assert content["mcfadden_r2"] == pytest.approx(fit.prsquared, rel=1e-8)
    robust = np.asarray(model.fit(cov_type="HC0", **settings).bse)
    tables = content_of("categorical", of, "hc0")["coefficients"]
    for k, rows in enumerate(tables.values()):
        np.testing.assert_allclose(column(rows, "std_error"), robust[:, k], rtol=1e-6)


@pytest.mark.parametrize("variant", ["plain", "weight", "weight and offset"])
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_statistics_of_least_squares(name: str, variant: str) -> None:
    of = varied(data(name), variant)
    x, y, offset = of.repeated()
    target, ones = y - offset, np.ones((len(y), 1))
    fit, null = sm.OLS(target, sm.add_constant(x)).fit(method="qr"), sm.OLS(target, ones).fit()
    content = content_of("gaussian", of)
    assert content["deviance"] == pytest.approx(fit.ssr, rel=1e-8)
    assert content["null_deviance"] == pytest.approx(fit.centered_tss, rel=1e-9)
    assert content["r_squared"] == pytest.approx(fit.rsquared, rel=1e-9)
    # R² of least squares with a learnt sigma, whatever it is computed from.
    assert content["cox_snell_r2"] == pytest.approx(fit.rsquared, rel=1e-9)
    assert "mcfadden_r2" not in content
    assert content["null_log_likelihood"] == pytest.approx(null.llf, rel=1e-9)
    assert content["lr_chi2"] == pytest.approx(fit.compare_lr_test(null)[0], rel=1e-8)
    assert content["lr_df"] == x.shape[1]
    assert content["df_resid"] == fit.df_resid
    fixed = content_of("gaussian_fixed", of, scale=2.5)
    assert fixed["deviance"] == pytest.approx(fit.ssr / 2.5**2, rel=1e-8)
    assert fixed["r_squared"] == pytest.approx(fit.rsquared, rel=1e-9)


def test_statistics_that_are_not_defined_are_absent() -> None:
    of = data("engel")
    for head in ("heteroscedastic", "laplace"):
        content = content_of(head, of)
        assert not {"deviance", "null_deviance", "r_squared", "mcfadden_r2", "pearson_chi2"} & content.keys()
        assert 0 < content["cox_snell_r2"] < 1
        assert content["lr_p_value"] < 1e-6
    penalised = content_of("gaussian", of, tau=1.0)
    assert not {"aic", "bic", "lr_chi2", "df_resid", "num_parameters"} & penalised.keys()
    assert 0 < penalised["r_squared"] < 1


@pytest.mark.parametrize("head", ["bernoulli", "categorical", "poisson"])
def test_expected_information_of_a_canonical_link_is_the_observed_one(head: str) -> None:
    of = varied(data({"bernoulli": "spector", "categorical": "anes96", "poisson": "cpunish"}[head]), "weight")
    tables = {kind: content_of(head, of, kind) for kind in ("observed", "expected")}
    for kind, content in tables.items():
        assert content["standard_errors"] == f"{kind} information"
    for key, rows in tables["observed"]["coefficients"].items():
        expected = column(tables["expected"]["coefficients"][key], "std_error")
        np.testing.assert_allclose(expected, column(rows, "std_error"), rtol=1e-9)


def test_sandwich_of_a_predicted_scale_by_hand() -> None:
    """Scores and Hessian of the heteroscedastic Gaussian, written out, on the features as they are."""
    of = varied(data("engel"), "weight")
    tables = content_of("heteroscedastic", of, "sandwich")["coefficients"]
    design = sm.add_constant(of.x)
    s = design @ column(tables["scale"], "estimate")
    r = of.y - design @ column(tables["loc"], "estimate")
    score = np.hstack([(-r * np.exp(-2 * s))[:, None] * design, (1 - r**2 * np.exp(-2 * s))[:, None] * design])
    blocks = [[np.exp(-2 * s), 2 * r * np.exp(-2 * s)], [2 * r * np.exp(-2 * s), 2 * r**2 * np.exp(-2 * s)]]
    w = of.weight
    hessian = np.block([[design.T @ (design * (w * b)[:, None]) for b in row] for row in blocks])
    unit = np.diag(1 / np.sqrt(np.diag(hessian)))
    bread = unit @ np.linalg.inv(unit @ hessian @ unit) @ unit
    expected = np.sqrt(np.diag(bread @ (score.T @ (score * w[:, None])) @ bread))
    found = np.concatenate([column(tables[name], "std_error") for name in ("loc", "scale")])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sandwich_of_least_absolute_deviations_counts_every_row() -> None:
    """Each score is ±x / b, for the rows that are fitted exactly too: as many as there are coefficients."""
    of = data("stackloss")
    content = content_of("laplace", of, "sandwich")
    assert content["standard_errors"] == "sandwich (HC0, expected information)"
    design = sm.add_constant(of.x)
    b = content["coefficients"]["scale"][0]["estimate"]
    expected = b * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    np.testing.assert_allclose(column(content["coefficients"]["loc"], "std_error"), expected, rtol=1e-9)


def test_sandwich_about_a_map() -> None:
    of, tau = data("spector"), 0.7
    z = np.column_stack([np.ones(len(of.y)), (of.x - of.x.mean(0)) / of.x.std(0)])
    rotation = np.diag(np.r_[1.0, 1 / of.x.std(0)])
    rotation[0, 1:] = -of.x.mean(0) / of.x.std(0)
    content = content_of("bernoulli", of, "sandwich", tau=tau)
    rows = content["coefficients"]["logits"]
    mu = 1 / (1 + np.exp(-sm.add_constant(of.x) @ column(rows, "estimate")))
    bread = np.linalg.inv(z.T @ (z * (mu * (1 - mu))[:, None]) + np.diag([0, *[tau**-2] * 3]))
    meat = z.T @ (z * ((of.y - mu) ** 2)[:, None])
    expected = np.sqrt(np.diag(rotation @ bread @ meat @ bread @ rotation.T))
    np.testing.assert_allclose(column(rows, "std_error"), expected, rtol=1e-8)
    assert content["standard_errors"] == "sandwich (HC0) of the MAP"


def powers(degree: int) -> Sample:
    """A polynomial in powers as they are on [−9, −3], as in Filip of NIST."""
    x = np.linspace(-9.0, -3.0, 82)
    return sample(np.column_stack([x**k for k in range(1, degree + 1)]), np.sin(2 * x) + 0.1 * np.cos(9 * x))


@pytest.mark.parametrize("degree", [3, 5, 7, 10])
def test_errors_of_ill_conditioned_polynomials(degree: int) -> None:
    of = powers(degree)
    with mpmath.workdps(60):
        design = mpmath.matrix([[1, *map(float, row)] for row in of.x])
        inverse = (design.T * design) ** -1
        y = mpmath.matrix(of.y.tolist())
        r = y - design * (inverse * (design.T * y))
        variance = (r.T * r)[0] / (len(of.y) - degree - 1)
        expected = [float(mpmath.sqrt(inverse[j, j] * variance)) for j in range(degree + 1)]
    # Whether the estimate is certified is the solver's to say; here it is the errors that count.
    solution = replace(solve("gaussian", of), converged=True)
    content = baseline_content(solution, list(of.names), None, "default")
    np.testing.assert_allclose(column(content["coefficients"]["loc"], "std_error"), expected, rtol=1e-6)


def test_a_sandwich_of_an_ill_conditioned_polynomial_is_refused() -> None:
    solution = replace(solve("gaussian", powers(10)), converged=True)
    content = baseline_content(solution, [f"x{j}" for j in range(10)], None, "hc0")
    assert content["standard_errors"] == "none: the information is singular, or too near to it for 64 bits"


def test_a_reason_stands_where_there_are_no_errors() -> None:
    few = sample(np.array([[0.3, 1.0], [1.0, -2.0], [2.5, 0.5]]), np.array([1.0, 3.0, 2.0]))
    content = content_of("gaussian_fixed", few, "hc1")
    assert content["standard_errors"] == "none: hc1 divides by n - p, which is 0"
    content = content_of("laplace", data("stackloss"), "observed")
    assert content["standard_errors"].startswith("none: the observed information of LaplaceHead is zero")
    assert all(row.keys() == {"name", "estimate"} for rows in content["coefficients"].values() for row in rows)


@pytest.mark.parametrize("head", HEADS)
def test_unit_deviance_is_twice_the_nll_above_a_perfect_prediction(head: str) -> None:
    made = new_head(head, 3, scale=2.0).double()
    columns = made.eta_dim + made.shared_dim
    eta = torch.linspace(-2.0, 1.5, 7 * columns, dtype=torch.float64).view(7, columns)
    y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    y = {"categorical": y.long(), "poisson": 40 * y}.get(head, y)
    unit = made.unit_deviance(eta, y)
    if head in ("heteroscedastic", "laplace"):
        assert unit is None
        return
    assert unit is not None
    perfect = torch.zeros(7, dtype=torch.float64)
    if isinstance(made, FactorizedHead) and made.eta_names[0] in ("loc", "rate"):
        best = eta.clone()
        best[:, 0] = y if made.eta_names[0] == "loc" else y.clamp(min=1e-300).log()
        perfect = made.nll_complete(best, y)
    expected = 2 * (made.nll_complete(eta, y) - perfect)
    if head == "gaussian":
        expected = expected * (2 * eta[:, 1]).exp()
    torch.testing.assert_close(unit, expected, rtol=1e-12, atol=1e-12)
