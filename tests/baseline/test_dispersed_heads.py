"""Heads without a solver of their own, against statsmodels, scipy and published values."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from exact_oracles import Array, Estimate, Sample, data, sample, varied
from exact_solving import configured, solve
from scipy.optimize import brentq, minimize
from scipy.special import digamma, polygamma
from statsmodels.discrete.count_model import ZeroInflatedPoisson
from statsmodels.othermod.betareg import BetaModel
from statsmodels.tools.numdiff import approx_hess

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import coefficient_tables
from mlefw.baseline.covariance import covariance
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.prior.none import NoPrior


def by_descent(nll: Callable[[Array], float], start: Array) -> tuple[float, Array, Array]:
    """Minimum, argument and standard errors from numerical derivatives alone; `nll` is a sum over rows."""
    found = minimize(nll, start, method="BFGS", options={"gtol": 1e-7, "maxiter": 5000})
    found = minimize(nll, found.x, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 20000})
    step = 1e-4 * np.maximum(np.abs(found.x), 1e-1)
    units, size = np.diag(step), len(step)
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
            total = sum(s * nll(found.x + a * units[i] + b * units[j]) for a, b, s in signs)
            hessian[i, j] = total / (4 * step[i] * step[j])
    return float(found.fun), found.x, np.sqrt(np.diag(np.linalg.inv(hessian)))


def gamma(x: Array, y: Array, offset: Array) -> Estimate:
    """The mean by iteratively reweighted least squares, the shape by the root of its own equation."""
    model = sm.GLM(y, sm.add_constant(x), sm.families.Gamma(sm.families.links.Log()), offset=offset)
    fit = model.fit(tol=1e-15, maxiter=200)
    mean = fit.fittedvalues
    left = float(np.mean(y / mean - 1 - np.log(y / mean)))
    k = brentq(lambda k: np.log(k) - digamma(k) - left, 1e-6, 1e9, xtol=1e-14, rtol=1e-14)
    nll = -float(scipy.stats.gamma(k, scale=mean / k).logpdf(y).mean())
    design = sm.add_constant(x)
    errors = np.sqrt(np.diag(np.linalg.inv(k * design.T @ (design * (y / mean)[:, None]))))
    # d dispersion = d k / k²
    shape_error = 1 / math.sqrt(len(y) * (float(polygamma(1, k)) - 1 / k)) / k**2
    params = {"mean": fit.params, "dispersion": np.array([1 / k])}
    return Estimate(nll, nll, params, {"mean": errors, "dispersion": np.array([shape_error])})


def exponential(x: Array, y: Array, offset: Array) -> Estimate:
    fit = sm.GLM(y, sm.add_constant(x), sm.families.Gamma(sm.families.links.Log()), offset=offset).fit(tol=1e-15)
    design, mean = sm.add_constant(x), fit.fittedvalues
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (y / mean)[:, None]))))
    nll = float(np.mean(np.log(mean) + y / mean))
    return Estimate(nll, nll, {"mean": fit.params}, {"mean": errors})


def negative_binomial(x: Array, y: Array, offset: Array) -> Estimate:
    model = sm.NegativeBinomial(y, sm.add_constant(x), offset=offset)
    near = model.fit(disp=0, maxiter=500)
    fit = model.fit(start_params=near.params, method="newton", tol=1e-13, disp=0)
    nll = -fit.llf / len(y)
    params, errors = np.split(fit.params, [-1]), np.split(fit.bse, [-1])
    names = ("mean", "dispersion")
    return Estimate(nll, nll, dict(zip(names, params, strict=True)), dict(zip(names, errors, strict=True)))


def beta(x: Array, y: Array, offset: Array) -> Estimate:
    assert not offset.any(), "BetaModel takes no offset"
    model = BetaModel(y, sm.add_constant(x))
    fit = model.fit(disp=0)
    fit = model.fit(start_params=fit.params, method="newton", tol=1e-13, disp=0)
    covariance = np.linalg.inv(-model.hessian(fit.params))
    errors, precision = np.sqrt(np.diag(covariance)), math.exp(fit.params[-1])
    nll = -fit.llf / len(y)
    params = {"mean": fit.params[:-1], "precision": np.array([precision])}
    return Estimate(nll, nll, params, {"mean": errors[:-1], "precision": precision * errors[-1:]})


def zero_inflated_poisson(x: Array, y: Array, offset: Array) -> Estimate:
    model = ZeroInflatedPoisson(y, sm.add_constant(x), np.ones((len(y), 1)), offset=offset)
    near = model.fit(disp=0, maxiter=500)
    fit = model.fit(start_params=near.params, method="newton", tol=1e-13, disp=0)
    share, nll = 1 / (1 + math.exp(-fit.params[0])), -fit.llf / len(y)
    params = {"rate": fit.params[1:], "inflation": np.array([share])}
    # The Hessian of statsmodels has zeros where inflation and rate meet: its errors are too small.
    bse = np.sqrt(np.diag(np.linalg.inv(-approx_hess(fit.params, model.loglike))))
    errors = {"rate": bse[1:], "inflation": share * (1 - share) * bse[:1]}
    return Estimate(nll, nll, params, errors)


def location_scale(logpdf: Callable[[Array], Array], names: tuple[str, str], of: Callable[[Array], Array]) -> Callable:
    """By descent: a location linear in x and a constant scale, of a transformed target."""

    def fit(x: Array, y: Array, offset: Array) -> Estimate:
        design, t = sm.add_constant(x), of(y) - offset
        jacobian = 0.0 if of is plain else float(np.log(y).sum())

        def nll(theta: Array) -> float:
            return -float(logpdf((t - design @ theta[:-1]) / math.exp(theta[-1])).sum()) + len(t) * theta[-1] + jacobian

        start = np.linalg.lstsq(design, t, rcond=None)[0]
        value, theta, errors = by_descent(nll, np.r_[start, math.log(np.std(t - design @ start))])
        loc, scale = {names[0]: theta[:-1]}, math.exp(theta[-1])
        spread = {names[1]: np.array([scale])}
        shown = {names[0]: errors[:-1]} | {names[1]: scale * errors[-1:]}
        if names[1] == "shape":
            spread, shown = {"shape": np.array([1 / scale])}, shown | {"shape": errors[-1:] / scale}
        return Estimate(value / len(y), value / len(y), loc | spread, shown)

    return fit


def plain(y: Array) -> Array:
    return y


def huber_logpdf(u: Array) -> Array:
    delta, size = 1.345, np.abs(u)
    z = math.sqrt(2 * math.pi) * math.erf(delta / math.sqrt(2)) + 2 / delta * math.exp(-(delta**2) / 2)
    return -np.where(size <= delta, u**2 / 2, delta * size - delta**2 / 2) - math.log(z)


def drawn(kind: str) -> Sample:
    """Rows of a known model; two features."""
    random = np.random.default_rng(5)
    n = 400
    x = random.normal(size=(n, 2))
    eta = 0.4 + x @ [0.5, -0.3]
    share = 1 / (1 + np.exp(-eta))
    y = {
        "gamma": lambda: random.gamma(2.0, np.exp(eta) / 2),
        "exponential": lambda: random.exponential(np.exp(eta)),
        "weibull": lambda: np.exp(eta) * random.weibull(1.7, n),
        "logistic": lambda: eta + random.logistic(size=n),
        "loglogistic": lambda: np.exp(eta + 0.3 * random.logistic(size=n)),
        "lognormal": lambda: np.exp(eta + 0.7 * random.normal(size=n)),
        "beta": lambda: random.beta(6 * share, 6 * (1 - share)),
        "zero_inflated_poisson": lambda: random.poisson(np.exp(eta + 0.5)) * (random.random(n) < 0.7),
        "negative_binomial": lambda: random.negative_binomial(2.0, 1 / (1 + np.exp(eta) / 2)),
        "huber": lambda: eta + random.laplace(size=n),
        "student_t": lambda: eta + random.standard_t(3.0, n),
        "binomial": lambda: random.binomial(10, share),
        "gaussian": lambda: eta + random.uniform(-1, 1, n),
    }[kind]()
    return sample(x, y)


ORACLES: dict[str, Callable[[Array, Array, Array], Estimate]] = {
    "gamma": gamma,
    "exponential": exponential,
    "negative_binomial": negative_binomial,
    "beta": beta,
    "zero_inflated_poisson": zero_inflated_poisson,
    "huber": location_scale(huber_logpdf, ("loc", "scale"), plain),
    "logistic": location_scale(scipy.stats.logistic.logpdf, ("loc", "scale"), plain),
    "loglogistic": location_scale(scipy.stats.logistic.logpdf, ("loc", "scale"), np.log),
    "lognormal": location_scale(scipy.stats.norm.logpdf, ("loc", "scale"), np.log),
    "weibull": location_scale(lambda u: u - np.exp(u), ("scale", "shape"), np.log),
}
CASES = [
    *((head, "drawn", "plain") for head in ORACLES),
    *((head, "drawn", "weight and offset") for head in ORACLES if head not in ("beta", "logistic")),
    ("gamma", "scotland", "plain"),
    ("huber", "stackloss", "plain"),
]


@pytest.mark.parametrize(("head", "name", "variant"), CASES)
def test_likelihood_coefficients_and_errors(head: str, name: str, variant: str) -> None:
    of = drawn(head) if name == "drawn" else data(name)
    of = varied(of, variant)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ORACLES[head](*of.repeated())
    solution = solve(head, of)
    assert solution.exists
    assert solution.converged
    assert solution.objective == pytest.approx(expected.nll, abs=1e-6)
    tables = coefficient_tables(solution, list(of.names), None, errors(solution))
    assert set(tables) == set(expected.params)
    for title, rows in tables.items():
        bse = expected.bse[title]
        np.testing.assert_allclose([row["std_error"] for row in rows], bse, rtol=2e-3)
        off = (np.array([row["estimate"] for row in rows]) - expected.params[title]) / bse
        np.testing.assert_allclose(off, 0, atol=0.01)


def solve_with(head: str, of: Sample, **settings: object) -> Solution:
    near = solve(head, of).problem
    made = configured(head, **settings).double()
    made.set_units(float(of.y.mean()), float(of.y.std()))
    return LinearBaseline().solve(Problem.of(made, near.rows, near.mean, near.scale, NoPrior()))


def errors(solution: Solution) -> object:
    found = covariance(solution)
    assert not isinstance(found, str), found
    return found


def test_published_values() -> None:
    """The gamma shape of scotland's votes and Huber's scale of stackloss, by maximum likelihood."""
    shape = coefficient_tables(solve("gamma", data("scotland")), list(data("scotland").names), None, None)
    assert 1 / shape["dispersion"][0]["estimate"] == pytest.approx(363.9, abs=0.05)
    scale = coefficient_tables(solve("huber", data("stackloss")), list(data("stackloss").names), None, None)
    assert scale["scale"][0]["estimate"] == pytest.approx(2.306, abs=5e-4)


def test_student_t_by_descent_from_the_truth() -> None:
    of = drawn("student_t")
    design = sm.add_constant(of.x)

    def nll(theta: Array) -> float:
        df, scale = 1 + math.exp(theta[-1]), math.exp(theta[-2])
        return -float(scipy.stats.t.logpdf(of.y, df, design @ theta[:-2], scale).sum())

    value, theta, bse = by_descent(nll, np.array([0.4, 0.5, -0.3, 0.0, math.log(2.0)]))
    solution = solve("student_t", of)
    assert solution.converged
    assert not solution.is_global
    assert solution.objective == pytest.approx(value / len(of.y), abs=1e-9)
    tables = coefficient_tables(solution, list(of.names), None, errors(solution))
    got = [row for title in ("loc", "scale", "df") for row in tables[title]]
    by = np.r_[1, 1, 1, math.exp(theta[-2]), math.exp(theta[-1])]
    expected = np.r_[theta[:3], math.exp(theta[-2]), 1 + math.exp(theta[-1])]
    np.testing.assert_allclose(([row["estimate"] for row in got] - expected) / (by * bse), 0, atol=0.01)
    np.testing.assert_allclose([row["std_error"] for row in got], by * bse, rtol=2e-3)


def test_an_underdispersed_count_has_the_poisson_as_its_limit() -> None:
    of = drawn("binomial")
    solution = solve("negative_binomial", of)
    assert not solution.exists
    assert solution.reason is not None
    assert "the variance does not exceed the mean" in solution.reason
    fit = sm.GLM(of.y, sm.add_constant(of.x), sm.families.Poisson()).fit(tol=1e-14)
    assert solution.infimum == pytest.approx(-fit.llf / len(of.y), abs=1e-9)


def test_light_tails_have_the_gaussian_as_their_limit() -> None:
    of = drawn("gaussian")
    solution = solve("student_t", of)
    assert not solution.exists
    assert solution.reason is not None
    assert "head=gaussian" in solution.reason
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit()
    assert solution.infimum == pytest.approx(-fit.llf / len(of.y), abs=1e-9)


def test_separated_counts_have_no_negative_binomial_estimate() -> None:
    of = drawn("negative_binomial")
    idle = (of.x[:, 0] > 1.0).astype(float)
    y = np.where(idle == 1, 0.0, of.y)
    solution = solve("negative_binomial", sample(np.column_stack([of.x[:, 1], idle]), y))
    assert not solution.exists
    assert solution.reason is not None
    assert "a count of zero" in solution.reason


def test_which_optima_are_known_to_be_global() -> None:
    known = {head: solve(head, drawn(head)).is_global for head in ("gamma", "huber", "lognormal", "weibull", "beta")}
    assert known == {"gamma": True, "huber": True, "lognormal": True, "weibull": True, "beta": True}


def test_a_zero_inflated_negative_binomial_is_no_worse_than_what_it_contains() -> None:
    of = drawn("zero_inflated_poisson")
    wide, narrow = solve("zero_inflated_negative_binomial", of), solve("zero_inflated_poisson", of)
    best = wide.objective if wide.exists else wide.infimum
    assert best is not None
    assert best <= narrow.objective + 1e-9


def test_a_generalised_gamma_contains_what_it_says() -> None:
    """At the shapes of a lognormal and of a Weibull model it is their fit; a learnt shape by a search beside scipy."""
    of = drawn("weibull")
    for shape, head in ((0.0, "lognormal"), (1.0, "weibull")):
        inside, outside = solve_with("generalised_gamma", of, shape=shape), solve(head, of)
        assert inside.exists
        assert inside.is_global
        assert inside.objective == pytest.approx(outside.objective, abs=1e-11)
    learnt = solve("generalised_gamma", of)
    assert learnt.converged
    design = sm.add_constant(of.x)

    def nll(theta: Array) -> float:
        loc, scale, q = design @ theta[:3], math.exp(theta[3]), theta[4]
        frozen = scipy.stats.gengamma(q**-2.0, q / scale, scale=np.exp(loc + scale / q * math.log(q * q)))
        return -float(frozen.logpdf(of.y).sum())

    value, theta, bse = by_descent(nll, np.array([0.4, 0.5, -0.3, -0.5, 1.0]))
    assert learnt.objective == pytest.approx(value / len(of.y), abs=1e-8)
    tables = coefficient_tables(learnt, list(of.names), None, errors(learnt))
    got = [row for title in ("loc", "scale", "shape") for row in tables[title]]
    by = np.r_[1, 1, 1, math.exp(theta[3]), 1]
    expected = np.r_[theta[:3], math.exp(theta[3]), theta[4]]
    np.testing.assert_allclose(([row["estimate"] for row in got] - expected) / (by * bse), 0, atol=0.01)
    np.testing.assert_allclose([row["std_error"] for row in got], by * bse, rtol=2e-3)
