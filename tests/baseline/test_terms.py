"""A design for each distribution parameter: likelihoods written out, statsmodels, and what must not matter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from formula_fits import Fit, fit
from scipy import special, stats

from mlefw.schema import design

RANDOM = np.random.default_rng(4)
N = 90
X, Z, OFFSET, WEIGHT = (
    RANDOM.normal(size=N),
    RANDOM.normal(size=N),
    0.3 * RANDOM.normal(size=N),
    RANDOM.uniform(1, 4, N),
)
G = np.array(["a", "b", "c"])[RANDOM.integers(0, 3, N)]
B, C = (G == "b").astype(float), (G == "c").astype(float)
LOC = 0.4 + 0.5 * X - 0.6 * B
SPREAD = np.exp(-0.4 + 0.3 * Z)
NORMAL = LOC + SPREAD * RANDOM.normal(size=N)
ONE = np.ones(N)

Likelihood = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
HEADS: dict[str, tuple[list[str], np.ndarray, Likelihood]] = {
    "heteroscedastic": ([], NORMAL, lambda y, a, b: stats.norm.logpdf(y, a, np.exp(b))),
    "gamma": (
        ["head.dispersion=predicted"],
        RANDOM.gamma(1 / SPREAD**2, np.exp(LOC) * SPREAD**2),
        lambda y, a, b: stats.gamma.logpdf(y, np.exp(-b), scale=np.exp(a + b)),
    ),
    "beta": (
        ["head.precision=predicted"],
        RANDOM.beta(6 * special.expit(LOC), 6 * special.expit(-LOC)),
        lambda y, a, b: stats.beta.logpdf(y, special.expit(a) * np.exp(b), special.expit(-a) * np.exp(b)),
    ),
}
"""Settings of a head with two predicted parameters, a target, and the log-density of scipy of both columns of eta."""


def frame(y: np.ndarray, **more: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {"x": X, "z": Z, "g": G, "o": OFFSET, "w": WEIGHT, "y": y}
    return pd.DataFrame(columns | more)


def second_differences(value: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """The Hessian by central differences."""
    unit = step * np.eye(len(at))
    found = np.empty((len(at), len(at)))
    for i, a in enumerate(unit):
        for j, b in enumerate(unit):
            ends = value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)
            found[i, j] = ends / (4 * step**2)
    return found


def tables(of: Fit, key: str = "estimate") -> np.ndarray:
    return np.concatenate([of.column(name, key) for name in of.content["coefficients"]])


@pytest.mark.parametrize("head", HEADS)
def test_each_parameter_has_its_own_columns_and_offset(head: str) -> None:
    settings, y, density = HEADS[head]
    of = fit(frame(y), "formula=y ~ x + g + offset(0.5*o) | z + offset(o)", f"head={head}", *settings)
    first, second = np.column_stack([ONE, X, B, C]), np.column_stack([ONE, Z])

    def log_likelihood(theta: np.ndarray) -> float:
        return float(density(y, 0.5 * OFFSET + first @ theta[:4], OFFSET + second @ theta[4:]).sum())

    theta = tables(of)
    assert of.log_likelihood == pytest.approx(log_likelihood(theta), abs=1e-9 * N)
    steps = 1e-4 * np.eye(6)
    assert max(abs(log_likelihood(theta + s) - log_likelihood(theta - s)) / 2e-4 for s in steps) < 1e-4
    information = -second_differences(log_likelihood, theta)
    assert tables(of, "std_error") == pytest.approx(np.linalg.inv(information).diagonal() ** 0.5, rel=1e-4)


@pytest.mark.parametrize(("head", "name"), [("gaussian", "scale"), ("gamma", "dispersion")])
def test_a_formula_of_one_is_a_parameter_that_all_rows_share(head: str, name: str) -> None:
    data = frame(HEADS["heteroscedastic" if head == "gaussian" else head][1])[["x", "z", "y"]]
    settings = (f"head.{name}=shared", f"head.terms.{name}=1", f"head.terms.{name}=1 + offset(0*z)")
    shared, one, formula = (fit(data, "data.target=y", f"head={head}", setting) for setting in settings)
    assert one.content["coefficients"] == shared.content["coefficients"]
    location = next(iter(shared.content["coefficients"]))
    assert formula.log_likelihood == pytest.approx(shared.log_likelihood, rel=1e-12)
    assert formula.column(location) == pytest.approx(shared.column(location), rel=1e-7)
    assert np.exp(formula.column(name)) == pytest.approx(shared.column(name), rel=1e-7)


def test_a_coding_of_levels_changes_no_likelihood() -> None:
    codings = ("g", "C(g, contr.treatment(base='c'))", "C(g, contr.sum)")
    found = [fit(frame(NORMAL), f"formula=y ~ x + {one} | {one}", "head=heteroscedastic") for one in codings]
    for of in found[1:]:
        assert of.log_likelihood == pytest.approx(found[0].log_likelihood, rel=1e-11)
        assert of.eta() == pytest.approx(found[0].eta(), abs=1e-6)
    (a, b, c), other = found[0].column("scale"), found[1].column("scale")
    # The reference is the level that has no row in the table.
    assert other == pytest.approx([a + c, -c, b - c], abs=1e-6)


def test_an_orthogonal_polynomial_is_the_same_model_as_powers() -> None:
    y = RANDOM.poisson(np.exp(0.5 * X))
    of = fit(frame(y), "formula=y ~ poly(x, 3)", "head=poisson")
    other = fit(frame(y), "formula=y ~ x + I(x**2) + I(x**3)", "head=poisson")
    glm = sm.GLM(y, np.column_stack([ONE, X, X**2, X**3]), family=sm.families.Poisson()).fit(tol=1e-14)
    assert of.eta() == pytest.approx(other.eta(), abs=1e-9)
    assert other.column("rate") == pytest.approx(glm.params, abs=1e-9)
    assert other.column("rate", "std_error") == pytest.approx(glm.bse, rel=1e-8)


def test_weights_of_the_variance_are_those_of_weighted_least_squares() -> None:
    of = fit(frame(NORMAL), "formula=y ~ x + g", "data.variance_weight=w")
    wls = sm.WLS(NORMAL, np.column_stack([ONE, X, B, C]), weights=WEIGHT).fit()
    assert of.log_likelihood == pytest.approx(wls.llf, abs=1e-9)
    assert of.column("loc") == pytest.approx(wls.params, abs=1e-8)
    assert of.column("loc", "std_error") == pytest.approx(wls.bse, rel=1e-6)


def test_twice_the_weights_of_the_variance_double_the_variance_alone() -> None:
    of, twice = (
        fit(frame(NORMAL, w=factor * WEIGHT), "formula=y ~ x + g", "data.variance_weight=w") for factor in (1, 2)
    )
    assert twice.log_likelihood == pytest.approx(of.log_likelihood, rel=1e-12)
    assert twice.column("loc") == pytest.approx(of.column("loc"), rel=1e-7)
    assert twice.column("loc", "std_error") == pytest.approx(of.column("loc", "std_error"), rel=1e-7)
    assert np.exp(2 * twice.column("scale")) == pytest.approx(2 * np.exp(2 * of.column("scale")), rel=1e-7)


NO_INTERCEPT = {"gaussian": "0 + x + z", "poisson": "x + z - 1", "bernoulli": "-1 + x + z + offset(o)"}


@pytest.mark.parametrize(("head", "formula"), NO_INTERCEPT.items())
def test_without_an_intercept(head: str, formula: str) -> None:
    eta, offset = 3 + 0.5 * X, OFFSET if "offset" in formula else np.zeros(N)
    y = {"gaussian": NORMAL + 3, "poisson": RANDOM.poisson(np.exp(eta / 3)), "bernoulli": (X + NORMAL > 0).astype(int)}
    of = fit(frame(y[head]), f"formula=y ~ {formula}", f"head={head}")
    names = {"poisson": "rate", "gaussian": "loc"}
    table = names.get(head) or next(iter(of.content["coefficients"]))
    kind = {"gaussian": sm.families.Gaussian, "poisson": sm.families.Poisson, "bernoulli": sm.families.Binomial}[head]
    glm = sm.GLM(y[head], np.column_stack([X, Z]), family=kind(), offset=offset).fit(tol=1e-14)
    assert [row["name"] for row in of.content["coefficients"][table]] == ["x", "z"]
    assert of.column(table) == pytest.approx(glm.params, abs=1e-8)
    if head != "gaussian":
        assert of.log_likelihood == pytest.approx(glm.llf, rel=1e-10)
        assert of.column(table, "std_error") == pytest.approx(glm.bse, rel=1e-7)


def test_order_of_rows_and_size_of_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    formula = "formula=y ~ bs(x, df=5) + poly(z, 2):g + cr(x*z, df=4) + C(k)"
    rows = frame(NORMAL, k=RANDOM.integers(0, 3, N))
    of = fit(rows, formula)
    order = RANDOM.permutation(N)
    monkeypatch.setattr(design, "BLOCK", 7)
    other = fit(rows.iloc[order], formula)
    assert other.data.train.x.numpy() == pytest.approx(of.data.train.x.numpy()[order], abs=1e-12)
    assert other.eta() == pytest.approx(of.eta()[order], abs=1e-9)


def test_the_terms_of_each_parameter_are_tested_together() -> None:
    of = fit(frame(NORMAL), "formula=y ~ bs(x, df=4) + g | x:g + z", "head=heteroscedastic")
    tests = {(test["parameter"], test["term"]): test for test in of.content["terms"]}
    sizes = {("loc", "g"): 2, ("loc", "bs(x, df=4)"): 4, ("scale", "z"): 1, ("scale", "x:g"): 3}
    assert {key: test["df"] for key, test in tests.items()} == sizes
    (row,) = [row for row in of.content["coefficients"]["scale"] if row["name"] == "z"]
    assert tests["scale", "z"]["statistic"] == pytest.approx(row["z"] ** 2, rel=1e-9)


def test_the_joint_test_of_least_squares_is_the_f_test_of_statsmodels() -> None:
    of = fit(frame(NORMAL), "formula=y ~ bs(x, df=4) + g:z", "head=gaussian")
    names = of.schema.names
    ols = sm.OLS(NORMAL, np.column_stack([ONE, of.data.train.x.numpy()])).fit()
    assert [test["term"] for test in of.content["terms"]] == ["bs(x, df=4)", "g:z"]
    for test, start in zip(of.content["terms"], ("bs(", "g["), strict=True):
        index = [k + 1 for k, name in enumerate(names) if name.startswith(start)]
        f = ols.f_test(np.eye(len(names) + 1)[index])
        assert (test["df"], test["df_resid"]) == (len(index), ols.df_resid)
        assert test["statistic"] == pytest.approx(float(f.fvalue), rel=1e-7)
