"""Exact solvers against statsmodels, scikit-learn, HiGHS and scipy on real data, in original units."""

import numpy as np
import pytest
from exact_oracles import Sample, data, estimate, varied
from exact_solving import solve

from mlefw.report.coefficient_table import baseline_content

PLAIN = [
    ("gaussian", "longley"),
    ("gaussian", "stackloss"),
    ("gaussian", "scotland"),
    ("gaussian", "engel"),
    ("gaussian", "diabetes"),
    ("gaussian_fixed", "stackloss"),
    ("gaussian_fixed", "diabetes"),
    ("heteroscedastic", "engel"),
    ("heteroscedastic", "diabetes"),
    ("laplace", "stackloss"),
    ("laplace", "engel"),
    ("laplace", "scotland"),
    ("laplace", "diabetes"),
    ("bernoulli", "spector"),
    ("bernoulli", "fair"),
    ("bernoulli", "star98"),
    ("bernoulli", "iris_12"),
    ("categorical", "anes96"),
    ("categorical", "wine_2"),
    ("poisson", "cpunish"),
    ("poisson", "randhie"),
]
VARIED = [
    ("gaussian", "stackloss"),
    ("gaussian_fixed", "engel"),
    ("heteroscedastic", "engel"),
    ("laplace", "stackloss"),
    ("laplace", "engel"),
    ("bernoulli", "spector"),
    ("bernoulli", "fair"),
    ("poisson", "cpunish"),
]
CASES = [
    *((head, name, "plain") for head, name in PLAIN),
    *((head, name, variant) for head, name in VARIED for variant in ("weight", "offset", "weight and offset")),
    ("categorical", "anes96", "weight"),
    ("categorical", "wine_2", "weight"),
]
SCALE = 7.5


@pytest.mark.parametrize(("head", "name", "variant"), CASES)
def test_maximum_likelihood(head: str, name: str, variant: str) -> None:
    of = varied(data(name), variant)
    expected = estimate(head, of, scale=SCALE)
    solution = solve(head, of, scale=SCALE)
    assert solution.exists
    assert solution.converged
    labels = [str(k) for k in range(int(of.y.max()) + 1)] if head == "categorical" else None
    content = baseline_content(solution, list(of.names), labels, "default")
    population = of.weight.sum()
    assert content["population"] == population
    assert content["dropped"] == []
    assert content["log_likelihood"] == pytest.approx(-expected.nll * population, rel=1e-9, abs=1e-9)
    tables = content["coefficients"]
    assert set(expected.params) <= set(tables)
    for title, params in expected.params.items():
        rows = tables[title]
        assert [row["name"] for row in rows] == ["(intercept)", *of.names]
        found = np.array([row["estimate"] for row in rows])
        errors = np.array([row["std_error"] for row in rows])
        # Coefficients are held to a fraction of their own uncertainty: they have very different sizes.
        assert np.abs(found - params).max() == pytest.approx(0, abs=1e-6 * np.abs(params).max() + 1e-12)
        assert np.abs((found - params) / expected.bse[title]).max() < 1e-6
        np.testing.assert_allclose(errors, expected.bse[title], rtol=1e-6)


MAP_CASES = [
    *(("gaussian", name, tau) for name in ("stackloss", "engel", "diabetes") for tau in (0.05, 1.0)),
    *(("gaussian_fixed", name, tau) for name in ("stackloss", "diabetes") for tau in (0.05, 1.0)),
    *(("heteroscedastic", name, tau) for name in ("engel", "diabetes") for tau in (0.1, 1.0)),
    *(("laplace", "stackloss", tau) for tau in (0.1, 1.0)),
    *(("bernoulli", name, tau) for name in ("spector", "fair", "breast_cancer") for tau in (0.1, 1.0)),
    *(("categorical", name, tau) for name in ("anes96", "iris", "wine") for tau in (0.1, 1.0)),
    *(("poisson", name, tau) for name in ("cpunish", "randhie") for tau in (0.1, 1.0)),
]


@pytest.mark.parametrize("variant", ["plain", "weight"])
@pytest.mark.parametrize(("head", "name", "tau"), MAP_CASES)
def test_maximum_a_posteriori(head: str, name: str, tau: float, variant: str) -> None:
    of = varied(data(name), variant)
    expected = estimate(head, of, tau, SCALE)
    solution = solve(head, of, tau, SCALE)
    assert solution.exists
    assert solution.converged
    assert solution.objective == pytest.approx(expected.objective, rel=1e-9, abs=1e-9)
    labels = [str(k) for k in range(int(of.y.max()) + 1)] if head == "categorical" else None
    content = baseline_content(solution, list(of.names), labels, "default")
    tolerance = 1e-4 if head == "laplace" else 1e-6
    for title, params in expected.params.items():
        found = np.array([row["estimate"] for row in content["coefficients"][title]])
        spread = np.r_[1.0, of.x.std(0)]
        unit = of.y.std() if title == "loc" else 1.0
        # In units of the standardised weights, so that each coefficient counts by what it moves.
        assert np.abs((found - params) * spread)[1:].max() < tolerance * unit


@pytest.mark.parametrize("size", [1e4, 1e6, 1e8])
def test_large_counts(size: float) -> None:
    of = data("stackloss")
    counts = Sample(of.x, of.names, np.floor(size * of.y), of.weight, of.offset)
    expected = estimate("poisson", counts)
    solution = solve("poisson", counts)
    assert solution.converged
    assert solution.objective == pytest.approx(expected.nll, rel=1e-8)
