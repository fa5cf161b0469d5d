"""Exact fits under other links than the usual one: statsmodels, published values, and a mean of zero."""

import warnings
from pathlib import Path

import formula_fits
import numpy as np
import pytest
import statsmodels.api as sm
import statsmodels.miscmodels.tests.results.results_ordinal_model as ucla
import torch
from exact_oracles import Sample, sample
from exact_solving import configured, rows_of
from scipy.optimize import minimize
from statsmodels.othermod.betareg import BetaModel

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import coefficient_tables
from mlefw.baseline.covariance import covariance
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.prior.none import NoPrior
from mlefw.rows.standardize import feature_statistics, target_statistics
from mlefw.run.placement import place

LINKS = sm.families.links
POSITIVE = {
    "log": LINKS.Log(),
    "identity": LINKS.Identity(),
    "inverse": LINKS.InversePower(),
    "sqrt": LINKS.Power(0.5),
    "inverse_squared": LINKS.InverseSquared(),
}
SHARES = {"probit": LINKS.Probit(), "cloglog": LINKS.CLogLog(), "loglog": LINKS.LogLog(), "cauchit": LINKS.Cauchy()}
CONVEX = {
    ("gamma", "inverse"),
    ("inverse_gaussian", "inverse"),
    ("inverse_gaussian", "inverse_squared"),
    *(("poisson", link) for link in ("identity", "sqrt")),
}


def solve(head: str, of: Sample, **settings: object) -> Solution:
    rows, made = rows_of(of, head), configured(head, **settings).double()
    if made.target == "numeric":
        made.set_units(*target_statistics(rows))
    mean, spread = feature_statistics(rows, True)
    made = place(made, solve_null(Problem.of(made, rows, mean, spread, NoPrior())))
    return LinearBaseline().solve(Problem.of(made, rows, mean, spread, NoPrior()))


def same(solution: Solution, table: str, params: np.ndarray, errors: np.ndarray | None = None) -> None:
    found = covariance(solution)
    assert not isinstance(found, str), found
    names = [f"x{k}" for k in range(solution.problem.rows.x.shape[1])]
    rows = coefficient_tables(solution, names, None, found)[table]
    bse = np.array([row["std_error"] for row in rows])
    np.testing.assert_allclose((np.array([row["estimate"] for row in rows]) - params) / bse, 0, atol=1e-5)
    if errors is not None:
        np.testing.assert_allclose(bse, errors, rtol=1e-3)


def drawn(head: str, link: str) -> tuple[Sample, np.ndarray]:
    """Rows whose linear predictor keeps the mean positive under every link, with an offset."""
    random = np.random.default_rng(7)
    x, offset = random.uniform(size=(250, 2)), random.uniform(0, 0.2, 250)
    mean = POSITIVE[link].inverse(0.7 + x @ [0.8, 0.4] + offset)
    y = {"gamma": random.gamma(2.0, mean / 2), "inverse_gaussian": random.wald(mean, 8.0)}.get(head)
    y = random.poisson(mean).astype(float) if y is None else y
    return sample(x, y, offset=offset), sm.add_constant(x)


@pytest.mark.parametrize("link", [link for link in POSITIVE if link != "log"])
@pytest.mark.parametrize("head", ["gamma", "inverse_gaussian", "poisson", "negative_binomial"])
def test_means_under_other_links(head: str, link: str) -> None:
    of, design = drawn(head, link)
    alpha = {"dispersion": 0.1} if head == "negative_binomial" else {}
    kind = {
        "gamma": sm.families.Gamma,
        "inverse_gaussian": sm.families.InverseGaussian,
        "poisson": sm.families.Poisson,
        "negative_binomial": sm.families.NegativeBinomial,
    }
    family = kind[head](POSITIVE[link], check_link=False, **({"alpha": 0.1} if alpha else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sm.GLM(of.y, design, family, offset=of.offset).fit([0.7, 0.8, 0.4], tol=1e-13, maxiter=300)
    solution = solve(head, of, link=link, **alpha)
    assert solution.converged
    assert solution.exists
    assert bool(solution.is_global) >= ((head, link) in CONVEX)
    same(solution, "mean" if head != "poisson" else "rate", model.params)
    if head in ("poisson", "negative_binomial"):
        assert solution.objective == pytest.approx(-model.llf / 250, abs=1e-10)


@pytest.mark.parametrize("link", ["log", "inverse"])
def test_a_gaussian_mean_under_other_links(link: str) -> None:
    random = np.random.default_rng(3)
    x = random.uniform(size=(200, 2))
    y = POSITIVE[link].inverse(0.5 + x @ [1.0, 0.5]) + 0.2 * random.normal(size=200)
    model = sm.GLM(y, sm.add_constant(x), sm.families.Gaussian(POSITIVE[link])).fit(tol=1e-13)
    solution = solve("gaussian", sample(x, y), link=link)
    assert solution.exists
    assert solution.is_global is None
    variance = float(np.mean(model.resid_response**2))
    assert solution.objective == pytest.approx(0.5 * np.log(2 * np.pi * variance) + 0.5, abs=1e-9)
    same(solution, "loc", model.params)


@pytest.mark.parametrize("link", SHARES)
def test_shares_under_other_links(link: str) -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(200, 2))
    mean = SHARES[link].inverse(0.3 + x @ [0.4, -0.3])
    y = random.beta(8 * mean, 8 * (1 - mean)).clip(1e-6, 1 - 1e-6)
    model = BetaModel(y, sm.add_constant(x), link=SHARES[link])
    near = model.fit(disp=0, maxiter=500)
    fit = model.fit(start_params=near.params, method="newton", tol=1e-13, disp=0)
    solution = solve("beta", sample(x, y), link=link)
    assert solution.converged
    assert solution.objective == pytest.approx(-fit.llf / 200, abs=1e-9)
    same(solution, "mean", fit.params[:-1], np.sqrt(np.diag(np.linalg.inv(-model.hessian(fit.params))))[:-1])


UCLA = {
    "probit": ([0.59810744, 0.01016388, 0.35815843], [1.2968367, 2.5028508], -358.7475638),
    "cloglog": ([0.51664163, 0.10811455, 0.33438487], [0.87051839, 1.974451], -359.7491117),
}


@pytest.mark.parametrize("link", UCLA)
def test_applications_to_graduate_school(link: str) -> None:
    """The data of UCLA on whether students apply; estimates agree with those of R's `polr` and `clm`."""
    path = Path(ucla.__file__).with_name("ologit_ucla.csv")
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=None, encoding="utf-8")
    order = {"unlikely": 0, "somewhat likely": 1, "very likely": 2}
    y = np.array([order[row[0]] for row in table])
    x = np.array([[row[1], row[2], row[3]] for row in table], dtype=float)
    rows = rows_of(sample(x, y), "ordinal")._replace(y=torch.tensor(y).long())
    mean, spread = feature_statistics(rows, True)
    head = configured("ordinal", link=link, num_classes=3).double()
    head = place(head, solve_null(Problem.of(head, rows, mean, spread, NoPrior())))
    solution = LinearBaseline().solve(Problem.of(head, rows, mean, spread, NoPrior()))
    slopes, thresholds, log_likelihood = UCLA[link]
    assert solution.is_global
    assert solution.objective * len(y) == pytest.approx(-log_likelihood, abs=1e-6)
    found = covariance(solution)
    assert not isinstance(found, str)
    tables = coefficient_tables(solution, ["pared", "public", "gpa"], None, found)
    np.testing.assert_allclose([row["estimate"] for row in tables["logit"][1:]], slopes, atol=1e-6)
    np.testing.assert_allclose([row["estimate"] for row in tables["thresholds"]], thresholds, atol=1e-6)
    if link == "probit":
        errors = [row["std_error"] for row in tables["logit"][1:]]
        np.testing.assert_allclose(errors, [0.157862, 0.172825, 0.156755], rtol=1e-4)


@pytest.mark.parametrize("link", ["identity", "sqrt"])
def test_a_rate_of_zero_lies_on_the_boundary(link: str) -> None:
    """Counts of zero at x = 0: the rate there would be negative, and is 0; the rest by a search under bounds."""
    x, y = np.array([0.0, 0, 1, 1, 2, 2, 3]), np.array([0.0, 0, 0, 0, 1, 3, 6])
    solution = solve("poisson", sample(x[:, None], y), link=link)
    assert solution.converged
    assert solution.exists
    assert solution.is_global
    assert covariance(solution) == solution.boundary
    assert "the mean of 2 rows is 0" in str(solution.boundary)
    power = 1 if link == "identity" else 2
    logs = np.log([1.0, 1, 1, 1, 1, 6, 720])

    def nll(slope: np.ndarray) -> float:
        rate = (slope[0] * x[2:]) ** power
        return float((rate - y[2:] * np.log(rate) + logs[2:]).sum()) / 7

    best = minimize(nll, [1.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14})
    assert solution.objective == pytest.approx(best.fun, abs=1e-9)
    assert solution.gap is None or solution.gap < 1e-10
    table = coefficient_tables(solution, ["x"], None, None)["rate"]
    assert table[0]["estimate"] == pytest.approx(0.0, abs=1e-5)
    assert table[1]["estimate"] == pytest.approx(float(best.x[0]), abs=1e-5)


@pytest.mark.parametrize(("head", "family"), [("poisson", sm.families.Poisson), ("gamma", sm.families.Gamma)])
def test_a_mean_without_a_link_or_an_intercept(head: str, family: type) -> None:
    random = np.random.default_rng(2)
    x, z = random.uniform(0.2, 3, 40), random.uniform(-1, 2, 40)
    y = random.poisson(1.5 * x + 0.3 * (z + 1)).astype(float) + (head == "gamma") * random.uniform(0.2, 1, 40)
    found = formula_fits.fit({"x": x, "z": z, "y": y}, f"head={head}", "head.link=identity", "formula=y ~ 0 + x + z")
    design = np.column_stack([x, z])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sm.GLM(y, design, family(LINKS.Identity())).fit(start_params=[2.0, 0.1], tol=1e-13)
    np.testing.assert_allclose(found.column("rate" if head == "poisson" else "mean"), model.params, rtol=1e-6)
    assert found.solution.converged


def test_no_mean_is_positive_without_an_intercept() -> None:
    """Under a square root x β is negative in some row, whatever the sign of β is."""
    rows = {"x": np.array([-1.0, 2.0, 1.0, -0.5]), "y": np.array([1.0, 3.0, 0.0, 2.0])}
    solution = formula_fits.fit(rows, "head=poisson", "head.link=sqrt", "formula=y ~ 0 + x").solution
    assert not solution.converged
    assert "no coefficients give every row an eta above 0" in str(solution.reason)
