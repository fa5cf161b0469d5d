"""Truncated, hurdle and beta-binomial heads, counts with trials and NB-P, beside published and independent fits."""

import json
import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyarrow as pa
import pytest
import scipy.optimize
import statsmodels.api as sm
import torch
from pyarrow import csv
from scipy import stats
from statsmodels.discrete.truncated_model import TruncatedLFNegativeBinomialP, TruncatedLFPoisson

from mlefw.baseline.existence import examine
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.cli import run
from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.beta_binomial import BetaBinomialHead
from mlefw.head.binomial import BinomialHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.hurdle import HurdleHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.truncated import TruncatedHead
from mlefw.head.weibull import WeibullHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import target_statistics


def log_prob(head: Head, eta: list[float], y: Any) -> float:
    rows = [torch.tensor([one], dtype=torch.float64) for one in (eta, y)]
    return -float(head.double().nll_complete(*rows))


@pytest.mark.parametrize(
    ("head", "eta", "y", "expected"),
    [
        (NegativeBinomialHead(variance="nb1"), [math.log(2.5), math.log(0.7)], 4, -2.229193332936749774654),
        (NegativeBinomialHead(variance=1.5), [math.log(2.5), math.log(0.7)], 4, -2.330965032658348),
        (NegativeBinomialHead(variance="nb2"), [math.log(2.5), math.log(0.7)], 4, -2.46693960919876),
        (BetaBinomialHead(), [math.log(2 / 5), -math.log(7)], [3, 10], -1.802809305414639975),
        (TruncatedHead(PoissonHead(), 1), [math.log(1.2)], 3, -2.086412380985757187908979),
        (TruncatedHead(GaussianHead(), 0.0), [-40.0, 0.0], 0.5, -16.43549651945088),
    ],
)
def test_verified_log_densities(head: Head, eta: list[float], y: Any, expected: float) -> None:
    assert log_prob(head, eta, y) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("lower", [1, 2, 5, 30])
@pytest.mark.parametrize("eta", [(-20.0, None), (0.0, None), (3.0, None), (0.0, 0.0), (2.0, -3.0), (-58.0, 60.0)])
def test_a_mass_beyond_a_bound_keeps_its_digits(lower: int, eta: tuple[float, float | None]) -> None:
    """Far in either tail, and where the dispersion goes to infinity."""
    y = lower + 1
    with mpmath.workdps(400):
        mean = mpmath.exp(mpmath.mpf(eta[0]))
        if eta[1] is None:
            masses = [mpmath.exp(-mean) * mean**j / mpmath.factorial(j) for j in range(y + 1)]
        else:
            size, p = mpmath.exp(-mpmath.mpf(eta[1])), 1 / (1 + mean * mpmath.exp(mpmath.mpf(eta[1])))
            masses = [mpmath.rf(size, j) / mpmath.factorial(j) * p**size * (1 - p) ** j for j in range(y + 1)]
        expected = float(mpmath.log(masses[y] / (1 - mpmath.fsum(masses[:lower]))))
    head = TruncatedHead(PoissonHead() if eta[1] is None else NegativeBinomialHead(), lower)
    assert log_prob(head, [e for e in eta if e is not None], y) == pytest.approx(expected, abs=1e-11)


TRUNCATED = {
    "poisson": (PoissonHead, (1, None), [0.3], lambda e: stats.poisson(math.exp(e[0]))),
    "poisson_between": (PoissonHead, (2, 6), [0.9], lambda e: stats.poisson(math.exp(e[0]))),
    "gaussian": (GaussianHead, (0.0, None), [-2.0, 0.3], lambda e: stats.norm(e[0], math.exp(e[1]))),
    "gaussian_between": (GaussianHead, (-1.0, 2.0), [1.0, 0.5], lambda e: stats.norm(e[0], math.exp(e[1]))),
    "gaussian_below": (GaussianHead, (None, 1.0), [0.4, 0.5], lambda e: stats.norm(e[0], math.exp(e[1]))),
    "lognormal": (LognormalHead, (1.0, None), [0.2, -0.5], lambda e: stats.lognorm(math.exp(e[1]), 0, math.exp(e[0]))),
    "weibull": (
        WeibullHead,
        (None, 2.0),
        [0.3, 0.2],
        lambda e: stats.weibull_min(math.exp(e[1]), scale=math.exp(e[0])),
    ),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_moments_quantiles_and_derivatives_between_bounds(name: str) -> None:
    kind, (lower, upper), point, make = TRUNCATED[name]
    head, whole = TruncatedHead(kind(), lower, upper).double(), make(point)
    discrete = head.support.is_discrete
    below = 0.0 if lower is None else whole.cdf(lower - 1 if discrete else lower)
    mass = (1.0 if upper is None else whole.cdf(upper)) - below
    eta = torch.tensor([point], dtype=torch.float64)
    found = head.distribution(eta)
    level = np.array([0.02, 0.3, 0.9])
    expected = whole.ppf(below + mass * level)
    for p, q in zip(level, expected, strict=True):
        assert float(quantile.quantile(found, float(p))) == pytest.approx(q, rel=1e-9)
        y = torch.tensor([q], dtype=torch.float64)
        assert float(cdf(found, y)) == pytest.approx((whole.cdf(q) - below) / mass, rel=1e-10)
    ends = (lower if lower is not None else -np.inf, upper if upper is not None else np.inf)
    first, second = (whole.expect(lambda y, k=k: y**k, lb=ends[0], ub=ends[1]) / mass for k in (1, 2))
    assert float(found.mean) == pytest.approx(first, rel=1e-8)
    assert float(found.variance) == pytest.approx(second - first**2, rel=1e-6)
    y = torch.tensor(expected[1:], dtype=torch.float64)
    leaf = eta.expand(2, -1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: head.nll_complete(e, y), leaf)
    assert torch.autograd.gradgradcheck(lambda e: head.nll_complete(e, y), leaf)


def fit(head: Head, x: np.ndarray, y: np.ndarray) -> Any:
    target, ones = torch.tensor(y, dtype=torch.float64), torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.tensor(x, dtype=torch.float64).reshape(len(y), -1), target, ones, torch.zeros_like(ones))
    head = head.double()
    head.set_units(*target_statistics(rows._replace(y=head.points(target))))
    zero = torch.zeros(rows.x.shape[1], dtype=torch.float64)
    return examine(LinearBaseline().solve(Problem.of(head, rows, zero, zero + 1, NoPrior())))


def eta_of(solution: Any) -> np.ndarray:
    """Intercept and slope of every predicted column, then the eta of shared parameters."""
    problem, head = solution.problem, solution.problem.head
    weight, bias, shared = problem.split(solution.theta)
    gain, k = head.gain, head.eta_dim
    columns = [torch.cat([(head.center[j] + gain[j] * bias[j])[None], gain[j] * weight[j]]) for j in range(k)]
    return torch.cat([*columns, head.center[k:] + gain[k:] * shared]).detach().numpy()


def test_families_of_five_with_an_affected_member() -> None:
    """Of 60 families 25, 23, 10, 1 and 1 have 1 to 5 affected: VGAM prints p = 0.3088, se 0.0322."""
    y = np.repeat([1.0, 2, 3, 4, 5], [25, 23, 10, 1, 1])
    solution = fit(TruncatedHead(BinomialHead(), 1), np.zeros((60, 0)), np.stack([y, np.full(60, 5.0)], 1))
    p = 1 / (1 + math.exp(-eta_of(solution)[0]))
    assert p == pytest.approx(0.30883170, abs=1e-8)
    assert -60 * solution.objective == pytest.approx(-71.29603906, abs=1e-7)
    information = 60 * float(solution.derivatives.hessian)
    assert p * (1 - p) / math.sqrt(information) == pytest.approx(0.03209962, abs=1e-6)
    assert solution.exists
    assert solution.is_global


def counts_above_zero() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = random.normal(size=300)
    mean = np.exp(0.6 + 0.4 * x)
    y = random.negative_binomial(2, 2 / (2 + mean))
    return x, np.where(random.random(300) < 0.2, 0, y).astype(float)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_truncated_and_hurdle_counts_against_statsmodels(name: str) -> None:
    x, y = counts_above_zero()
    some, design = y > 0, sm.add_constant(x)
    oracle = TruncatedLFPoisson if name == "poisson" else TruncatedLFNegativeBinomialP
    counts = oracle(y[some], design[some]).fit(disp=0, maxiter=1000, gtol=1e-8)
    zeros = sm.Logit(some, design).fit(disp=0)
    kind = PoissonHead if name == "poisson" else NegativeBinomialHead
    alone, both = fit(TruncatedHead(kind(), 1), x[some], y[some]), fit(HurdleHead(kind()), x, y)
    assert alone.exists
    assert both.exists
    expected = counts.params.copy()
    expected[2:] = np.log(expected[2:])
    np.testing.assert_allclose(eta_of(alone), expected, atol=2e-4)
    np.testing.assert_allclose(eta_of(both), [*expected[:2], *zeros.params, *expected[2:]], atol=2e-4)
    assert -alone.objective * some.sum() == pytest.approx(counts.llf, abs=1e-6)
    assert -both.objective * len(y) == pytest.approx(counts.llf + zeros.llf, abs=1e-6)
    if name == "poisson":
        assert both.is_global


def test_a_hurdle_whose_positive_counts_are_all_one_has_no_estimate() -> None:
    x, y = counts_above_zero()
    solution = fit(HurdleHead(PoissonHead()), x, np.minimum(y, 1))
    assert solution.exists is False
    zeros = sm.Logit(y > 0, sm.add_constant(x)).fit(disp=0)
    assert solution.infimum == pytest.approx(-zeros.llf / len(y), abs=1e-8)


@pytest.mark.parametrize(("y", "exists"), [([0.1, 0.2, 0.3, 0.5, 4], False), ([0.5, 0.7, 1.0, 1.4, 2.0], True)])
def test_a_truncated_gaussian_exists_if_its_tail_is_lighter_than_exponential(y: list[float], exists: bool) -> None:
    """del Castillo (1994): if and only if mean y² < 2 (mean y)²."""
    values = np.array(y)
    assert (np.mean(values**2) < 2 * np.mean(values) ** 2) == exists
    solution = fit(TruncatedHead(GaussianHead(), 0.0), np.zeros((5, 0)), values)
    assert solution.exists is exists
    if not exists:
        assert 5 * solution.infimum == pytest.approx(5 * (1 + math.log(values.mean())), abs=1e-9)
        assert 5 * solution.infimum == pytest.approx(5.09901, abs=1e-5)
    else:
        found = eta_of(solution)

        def nll(theta: np.ndarray) -> float:
            scale = math.exp(theta[1])
            return -float(stats.truncnorm(-theta[0] / scale, np.inf, theta[0], scale).logpdf(values).sum())

        best = scipy.optimize.minimize(nll, [1.0, -0.5], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
        np.testing.assert_allclose(found, best.x, atol=1e-5)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_grouped_binary_data_against_statsmodels(link: str) -> None:
    random = np.random.default_rng(5)
    x, n = random.normal(size=80), random.integers(1, 12, 80)
    y = random.binomial(n, 1 / (1 + np.exp(-0.3 - 0.7 * x)))
    names = {"logit": "Logit", "probit": "Probit", "cloglog": "CLogLog"}
    family = sm.families.Binomial(getattr(sm.families.links, names[link])())
    oracle = sm.GLM(np.c_[y, n - y], sm.add_constant(x), family=family).fit(tol=1e-12)
    solution = fit(BinomialHead(link), x, np.stack([y, n], 1))
    np.testing.assert_allclose(eta_of(solution), oracle.params, atol=1e-7)
    assert -80 * solution.objective == pytest.approx(oracle.llf, abs=1e-8)
    problem = solution.problem
    ((rows, _, eta),) = problem.etas(solution.theta)
    assert float(problem.head.unit_deviance(eta, rows.y).sum()) == pytest.approx(oracle.deviance, rel=1e-10)
    expected = problem.derivatives(solution.theta, expected=True).hessian * 80
    design = sm.add_constant(x)[:, ::-1]
    weights = family.weights(oracle.mu) * n
    np.testing.assert_allclose(expected.numpy(), design.T @ (weights[:, None] * design), rtol=1e-7)


def test_separated_trials_have_no_estimate() -> None:
    x, n = np.array([-2.0, -1, 0, 0, 1, 2]), np.full(6, 4.0)
    inside = fit(BinomialHead(), x, np.stack([np.array([0.0, 0, 1, 3, 4, 4]), n], 1))
    assert inside.exists is False
    mixed = fit(BinomialHead(), x, np.stack([np.array([0.0, 0, 1, 3, 3, 4]), n], 1))
    assert mixed.exists


def test_a_beta_binomial_goes_to_its_limit_where_the_score_says_so() -> None:
    """The correlation is 0 if and only if the score at the binomial fit does not point inwards."""
    n = np.full(6, 8.0)
    for y, exists in (([3.0, 4, 3, 2, 4, 3], False), ([0.0, 8, 3, 6, 1, 4], True)):
        m = np.sum(y) / n.sum()
        k = np.array(y)
        score = np.sum(k * (k - 1) / m + (n - k) * (n - k - 1) / (1 - m) - n * (n - 1))
        assert (score > 0) == exists
        solution = fit(BetaBinomialHead(), np.zeros((6, 0)), np.stack([y, n], 1))
        assert solution.exists is exists
        if not exists:
            assert solution.infimum == pytest.approx(-stats.binom(n, m).logpmf(y).mean(), abs=1e-9)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_other_variances_against_statsmodels(power: float) -> None:
    x, y = counts_above_zero()
    oracle = sm.NegativeBinomialP(y, sm.add_constant(x), p=power).fit(disp=0, maxiter=1000, gtol=1e-8)
    solution = fit(NegativeBinomialHead(variance=power), x, y)
    np.testing.assert_allclose(eta_of(solution)[:2], oracle.params[:2], atol=1e-4)
    assert math.exp(eta_of(solution)[2]) == pytest.approx(oracle.params[2], rel=1e-3)
    assert -solution.objective * len(y) == pytest.approx(oracle.llf, abs=1e-6)


def write(folder: Path, **columns: list[Any]) -> list[str]:
    csv.write_csv(pa.table(columns), folder / "d.csv")
    return ["data=csv", f"data.path={folder / 'd.csv'}", "data.target=y"]


@pytest.mark.parametrize(
    ("n", "settings", "words"),
    [
        ([4.0, 2.0, 5.0], ["data.trials=n"], "at least the count of successes"),
        ([4.5, 4.0, 5.0], ["data.trials=n"], "whole numbers from 1 on"),
        ([4.0, None, 5.0], ["data.trials=n"], "missing"),
        ([4.0, 4.0, 5.0], [], "expected: data.trials=COLUMN"),
        ([4.0, 4.0, 5.0], ["data.trials=n", "head.trials=5"], "data.trials=n belongs to"),
    ],
)
def test_trials_that_are_none(
    n: list[Any], settings: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, x=[*range(30)], y=[1.0, 3.0, 2.0] * 10, n=pa.array(n * 10))
    assert run(["baseline", "head=binomial", *data, *settings, f"run_dir={tmp_path / 'r'}"]) != 0
    assert words in capsys.readouterr().err


def test_from_a_table_of_trials_to_predictions(tmp_path: Path, mlefw: Any) -> None:
    random = np.random.default_rng(0)
    x, n = random.normal(size=200), random.integers(1, 12, 200)
    y = random.binomial(n, 1 / (1 + np.exp(-0.3 - 0.7 * x)))
    data = write(tmp_path, x=x, y=y, n=n)
    quick = ["model=linear", "batch=full", "optimizer=lbfgs", "report=false", "plots=false"]
    done = mlefw("train", *data[:2], "data.target=[y,n]", "head=binomial", *quick, "run_dir=r")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    known = summary["metrics"]["train"]
    assert abs(known["nll_nats"] - summary["baseline"]["train"]["nll_nats"]) < 1e-9
    assert {"dispersion", "crps", "pit_rmse", "coverage_90"} <= known.keys()
    csv.write_csv(pa.table({"x": x[:4], "n": [1, 10, 100, 1000]}), tmp_path / "new.csv")
    assert mlefw("predict", "run=r", "data.path=new.csv", "output=p.csv").returncode == 0
    found = csv.read_csv(tmp_path / "p.csv").to_pydict()
    p = np.array(found["mean"]) / [1, 10, 100, 1000]
    assert ((p > 0) & (p < 1)).all()
    expected = stats.binom([1, 10, 100, 1000], p)
    np.testing.assert_array_equal(found["lower"], expected.ppf(0.05))
    np.testing.assert_array_equal(found["upper"], expected.ppf(0.95))
    csv.write_csv(pa.table({"x": x[:4]}), tmp_path / "new.csv")
    refused = mlefw("predict", "run=r", "data.path=new.csv", "output=q.csv")
    assert refused.returncode != 0
    assert "n" in refused.stderr
    assert "the model needs it" in refused.stderr


def test_a_plugin_head_states_where_its_likelihood_rises() -> None:
    """A head whose NLL is not a number far out gets its proof from `recession` alone."""

    class Overflows(PoissonHead):
        def distribution(self, eta: torch.Tensor) -> Any:
            return super().distribution(torch.where(eta > 20, math.nan, eta))

    class Silent(Overflows):
        def recession(self, y: torch.Tensor) -> dict[str, Any]:
            return {}

    x = np.array([-1.0, -1.0, 1.0, 1.0, 0.0, 0.5])
    y = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 0.0])
    separated = fit(Overflows(), (x < 0).astype(float), y)
    assert separated.exists is False
    assert fit(Overflows(), x, y).exists
    from mlefw.baseline.separation import recession

    stated, silent = (recession(fit(kind(), x, y), math.inf) for kind in (Overflows, Silent))
    assert stated.excluded
    assert not silent.excluded


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TruncatedHead(PoissonHead(), 0), "leaves nothing out"),
        (lambda: TruncatedHead(GaussianHead(), 2.0, 1.0), "not below"),
        (lambda: TruncatedHead(PoissonHead(), 0.5), "whole number"),
        (lambda: HurdleHead(GaussianHead()), "not a head for counts or for positive numbers"),
        (lambda: NegativeBinomialHead(variance="nb3"), "expected nb1, nb2"),
        (lambda: BinomialHead(trials=0), "whole number from 1"),
    ],
)
def test_settings_that_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
