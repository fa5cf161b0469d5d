"""The intercept-only model against its closed forms."""

import math

import numpy as np
import pytest
import torch
from exact_oracles import Array, data, varied
from exact_solving import new_head, problem_of, rows_of
from scipy.special import gammaln

from mlefw.baseline.linear import solve_null
from mlefw.baseline.problem import Problem
from mlefw.prior.none import NoPrior
from mlefw.rows.standardize import feature_statistics, target_statistics

SCALE = 7.5


def gaussian(y: Array) -> tuple[float, list[float]]:
    square = y.var()
    return 0.5 * (1 + math.log(2 * math.pi * square)), [y.mean(), 0.5 * math.log(square)]


def gaussian_fixed(y: Array) -> tuple[float, list[float]]:
    return 0.5 * math.log(2 * math.pi * SCALE**2) + y.var() / (2 * SCALE**2), [y.mean()]


def laplace(y: Array) -> tuple[float, list[float]]:
    b = np.abs(y - np.median(y)).mean()
    return 1 + math.log(2 * b), [np.median(y), math.log(b)]


def bernoulli(y: Array) -> tuple[float, list[float]]:
    f = y.mean()
    return -f * math.log(f) - (1 - f) * math.log(1 - f), [math.log(f / (1 - f))]


def categorical(y: Array) -> tuple[float, list[float]]:
    f = np.bincount(y.astype(int)) / len(y)
    return -float(f @ np.log(f)), np.log(f).tolist()


def poisson(y: Array) -> tuple[float, list[float]]:
    m = y.mean()
    return m - m * math.log(m) + float(gammaln(y + 1).mean()), [math.log(m)]


FORMS = {
    "gaussian": gaussian,
    "gaussian_fixed": gaussian_fixed,
    "heteroscedastic": gaussian,
    "laplace": laplace,
    "bernoulli": bernoulli,
    "categorical": categorical,
    "poisson": poisson,
}
CASES = [
    ("gaussian", "diabetes"),
    ("gaussian", "longley"),
    ("gaussian_fixed", "diabetes"),
    ("heteroscedastic", "engel"),
    ("laplace", "diabetes"),
    ("laplace", "stackloss"),
    ("bernoulli", "fair"),
    ("bernoulli", "breast_cancer"),
    ("categorical", "anes96"),
    ("categorical", "wine"),
    ("poisson", "randhie"),
    ("poisson", "cpunish"),
]


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("variant", ["plain", "weight"])
@pytest.mark.parametrize(("head", "name"), CASES)
def test_closed_form(head: str, name: str, variant: str, units: bool) -> None:
    of = varied(data(name), variant)
    nll, eta = FORMS[head](of.repeated()[1])
    rows = rows_of(of, head)
    made = new_head(head, int(of.y.max()) + 1, SCALE)
    if units and made.target == "numeric":
        made.set_units(*target_statistics(rows))
    null = solve_null(Problem.of(made, rows, *feature_statistics(rows, True), NoPrior()))
    assert null.exists
    assert null.converged
    assert null.objective == pytest.approx(nll, rel=1e-11, abs=1e-11)
    found = (null.problem.head.center + null.problem.head.gain * null.theta).numpy()
    if head == "categorical":
        found, eta = found - found.mean(), np.array(eta) - np.mean(eta)
    if head == "laplace" and len(of.repeated()[1]) % 2 == 0:
        found, eta = found[1:], eta[1:]  # the median is not unique
    np.testing.assert_allclose(found, eta, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("head", "name"), CASES)
def test_a_raw_output_of_zero_is_the_null_model(head: str, name: str) -> None:
    of = varied(data(name), "weight")
    problem = problem_of(head, of, scale=SCALE)
    nll, _ = FORMS[head](of.repeated()[1])
    assert problem.value(torch.zeros(problem.size, dtype=torch.float64)) == pytest.approx(nll, rel=1e-11)


@pytest.mark.parametrize("head", ["gaussian", "gaussian_fixed", "laplace"])
def test_a_location_is_that_of_what_the_offset_leaves(head: str) -> None:
    of = varied(data("stackloss"), "weight and offset")
    problem = problem_of(head, of, scale=SCALE)
    _, y, offset = of.repeated()
    nll, eta = FORMS[head](y - offset)
    assert problem.value(torch.zeros(problem.size, dtype=torch.float64)) == pytest.approx(nll, rel=1e-11)
    assert float(problem.head.center[0]) == pytest.approx(eta[0], rel=1e-9)


def test_a_rate_is_events_over_exposure() -> None:
    of = varied(data("cpunish"), "weight and offset")
    problem = problem_of("poisson", of)
    exposure = np.exp(of.offset)
    assert float(problem.head.center[0].exp()) == pytest.approx(of.weight @ of.y / (of.weight @ exposure), rel=1e-11)
