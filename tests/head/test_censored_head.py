"""Censored numbers: densities and masses by definition, exact fits beside published and independent ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyarrow as pa
import pytest
import scipy.optimize
import torch
from pyarrow import csv
from scipy import stats

from mlefw.baseline.existence import examine
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.cli import run
from mlefw.configuration.read import read_settings, settings_of
from mlefw.distribution.censored import log1mexp, log_tail
from mlefw.errors import MisfitError, UsageError
from mlefw.head.censored import CensoredHead
from mlefw.head.exponential import ExponentialHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.generalised_gamma import GeneralisedGamma, GeneralisedGammaHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.logistic import LogisticHead
from mlefw.head.loglogistic import LogLogisticHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.student_t import StudentT, StudentTHead
from mlefw.head.weibull import WeibullHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import target_statistics
from mlefw.run import build

NAN = float("nan")


def t_survival(df: Any, u: Any) -> Any:
    outer = mpmath.betainc(df / 2, 0.5, 0, df / (df + u * u), regularized=True) / 2
    return outer if u > 0 else 1 - outer


def gamma_survival(w: Any, q: Any) -> Any:
    """P(W > w) of a log-gamma variable of shape 1 / q², in units of the generalised gamma distribution."""
    k = 1 / mpmath.mpf(q) ** 2
    ends = (k * mpmath.exp(q * w), mpmath.inf) if q > 0 else (0, k * mpmath.exp(q * w))
    return mpmath.gammainc(k, *ends, regularized=True)


HEADS: dict[str, Callable[[], Any]] = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "lognormal": LognormalHead,
    "weibull": WeibullHead,
    "exponential": ExponentialHead,
    "logistic": LogisticHead,
    "loglogistic": LogLogisticHead,
    "student_t": lambda: StudentTHead(),
    "generalised_gamma": GeneralisedGammaHead,
}
SURVIVAL: dict[str, Callable[[Any, Any], Any]] = {
    "gaussian": lambda e, y: mpmath.ncdf((e[0] - y) / mpmath.exp(e[1])),
    "laplace": lambda e, y: (
        mpmath.exp(-(y - e[0]) / mpmath.exp(e[1])) / 2
        if y > e[0]
        else 1 - mpmath.exp((y - e[0]) / mpmath.exp(e[1])) / 2
    ),
    "lognormal": lambda e, y: mpmath.ncdf((e[0] - mpmath.log(y)) / mpmath.exp(e[1])),
    "weibull": lambda e, y: mpmath.exp(-((y / mpmath.exp(e[0])) ** mpmath.exp(e[1]))),
    "exponential": lambda e, y: mpmath.exp(-y / mpmath.exp(e[0])),
    "logistic": lambda e, y: 1 / (1 + mpmath.exp((y - e[0]) / mpmath.exp(e[1]))),
    "loglogistic": lambda e, y: 1 / (1 + mpmath.exp((mpmath.log(y) - e[0]) / mpmath.exp(e[1]))),
    "student_t": lambda e, y: t_survival(1 + mpmath.exp(e[2]), (y - e[0]) / mpmath.exp(e[1])),
    "generalised_gamma": lambda e, y: gamma_survival((mpmath.log(y) - e[0]) / mpmath.exp(e[1]), e[2]),
}
BOUNDS = [(0.5, NAN), (NAN, 0.5), (0.4, 0.9), (3.0, 3.5), (8.0, NAN), (NAN, 1e-3), (20.0, 21.0), (0.7, 0.7000001)]


@pytest.mark.parametrize("name", HEADS)
def test_masses_by_definition(name: str) -> None:
    head = CensoredHead(HEADS[name]()).double()
    eta = [0.3, -0.2, 0.7][: head.eta_dim + head.shared_dim]
    found = head.nll_complete(
        torch.tensor([eta] * len(BOUNDS), dtype=torch.float64), torch.tensor(BOUNDS, dtype=torch.float64)
    )
    with mpmath.workdps(200):
        survival = lambda y: SURVIVAL[name]([mpmath.mpf(e) for e in eta], mpmath.mpf(y))  # noqa: E731
        expected = []
        for low, high in BOUNDS:
            over = mpmath.mpf(1) if np.isnan(low) else survival(low)
            beyond = mpmath.mpf(0) if np.isnan(high) else survival(high)
            expected.append(float(-mpmath.log(over - beyond)))
    # An interval of 1e-7 is a difference of near numbers, whatever is done.
    np.testing.assert_allclose(found.numpy()[:-1], expected[:-1], rtol=1e-11)
    np.testing.assert_allclose(found.numpy()[-1], expected[-1], rtol=1e-8)


@pytest.mark.parametrize("name", HEADS)
def test_an_exact_value_has_the_density_of_the_component(name: str) -> None:
    part = HEADS[name]()
    eta = torch.randn(6, part.eta_dim, generator=torch.Generator().manual_seed(0))
    y = torch.rand(6, generator=torch.Generator().manual_seed(1)).double() + 0.1
    found = CensoredHead(HEADS[name]()).nll(eta, torch.stack([y, y], -1))
    torch.testing.assert_close(found, part.nll(eta, y), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_derivatives(name: str) -> None:
    head = CensoredHead(HEADS[name]()).double()
    bounds = torch.tensor([(0.5, NAN), (NAN, 0.5), (0.4, 0.9), (1.3, 1.3), (0.0, 0.6)], dtype=torch.float64)
    bounds = bounds if name not in ("gaussian", "laplace", "logistic", "student_t") else bounds[:4]
    bounds = bounds[:3] if name == "generalised_gamma" else bounds
    columns = head.eta_dim + head.shared_dim
    eta = torch.linspace(-0.4, 0.7, len(bounds) * columns, dtype=torch.float64).reshape(-1, columns).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: head.nll_complete(e, bounds), eta)
    assert torch.autograd.gradgradcheck(lambda e: head.nll_complete(e, bounds), eta)


def test_a_lower_bound_at_the_end_of_the_support_is_none() -> None:
    head = CensoredHead(WeibullHead()).double()
    eta = torch.tensor([[0.3]], dtype=torch.float64)
    y = torch.tensor([[0.0, 2.0], [NAN, 2.0]], dtype=torch.float64)
    nll = head.nll(eta.expand(2, 1), y)
    assert nll[0] == nll[1]


def test_log1mexp() -> None:
    x = torch.tensor([1e-300, 1e-12, 0.3, 0.69314, 0.69315, 5.0, 800.0], dtype=torch.float64)
    with mpmath.workdps(400):
        expected = [float(mpmath.log(-mpmath.expm1(-mpmath.mpf(float(v))))) for v in x]
    np.testing.assert_allclose(log1mexp(x).numpy(), expected, rtol=1e-14)


def fit(component: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> Any:
    y = torch.tensor(np.stack([low, high], 1))
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.tensor(x), y, ones, torch.zeros_like(ones))
    head = CensoredHead(component).double()
    head.set_units(*target_statistics(rows._replace(y=head.points(y))))
    problem = Problem.of(head, rows, rows.x.mean(0), rows.x.std(0), NoPrior())
    return examine(LinearBaseline().solve(problem))


def test_the_motorettes_of_nelson_and_hahn() -> None:
    """Lifetimes of motor insulation at four temperatures; estimates of Schmee & Hahn (1979)."""
    failed = {
        170: [1764, 2772, 3444, 3542, 3780, 4860, 5196],
        190: [408, 408, 1344, 1344, 1440],
        220: [408, 408, 504, 504, 504],
    }
    running = {150: (8064, 10), 170: (5448, 3), 190: (1680, 5), 220: (528, 5)}
    rows = [(t, h, h) for t, hours in failed.items() for h in hours]
    rows += [(t, h, NAN) for t, (h, count) in running.items() for _ in range(count)]
    degrees, low, high = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    x = (1000 / (degrees + 273.2))[:, None]
    solution = fit(GaussianHead(), x, np.log10(low), np.log10(high))
    assert solution.converged
    head = solution.problem.head
    slope = float(head.gain[0] * solution.theta[0] / x.std(ddof=1))
    intercept = float(head.center[0] + head.gain[0] * solution.theta[1]) - slope * x.mean()
    scale = float((head.center[1] + head.gain[1] * solution.theta[2]).exp())
    assert [intercept, slope, scale] == pytest.approx([-6.019, 4.311, 0.2592], abs=6e-4)


@pytest.mark.parametrize("name", ["gaussian", "weibull", "lognormal", "logistic", "loglogistic", "student_t"])
def test_a_regression_with_every_kind_of_bound(name: str) -> None:
    random = np.random.default_rng(5)
    n = 300
    x = random.normal(size=(n, 2))
    eta = 1.0 + x @ [0.6, -0.4]
    noise = random.normal(size=n) if name != "weibull" else np.log(random.exponential(size=n))
    if name in ("logistic", "loglogistic", "student_t"):
        noise = random.logistic(size=n) if name != "student_t" else random.standard_t(4, n)
    value = eta + 0.5 * noise if name in ("gaussian", "logistic", "student_t") else np.exp(eta + 0.5 * noise)
    which = random.integers(0, 4, n)
    width = np.abs(value) * random.random(n)
    low = np.select([which == 0, which == 1, which == 2], [value, value - 0.5 * width, value - 0.3 * width], NAN)
    high = np.select([which == 0, which == 1, which == 3], [value, value + 0.5 * width, value + 0.2 * width], NAN)
    solution = fit(StudentTHead(df=4.0) if name == "student_t" else HEADS[name](), x, low, high)

    def nll(theta: np.ndarray) -> float:
        loc, scale = theta[0] + x @ theta[1:3], np.exp(theta[3])
        frozen = {
            "gaussian": lambda: stats.norm(loc, scale),
            "lognormal": lambda: stats.lognorm(scale, scale=np.exp(loc)),
            "weibull": lambda: stats.weibull_min(scale, scale=np.exp(loc)),
            "logistic": lambda: stats.logistic(loc, scale),
            "loglogistic": lambda: stats.fisk(1 / scale, scale=np.exp(loc)),
            "student_t": lambda: stats.t(4, loc, scale),
        }[name]()
        with np.errstate(divide="ignore"):
            between, below = np.log(frozen.cdf(high) - frozen.cdf(low)), frozen.logcdf(high)
        terms = np.select(
            [which == 0, which == 1, which == 2],
            [frozen.logpdf(value), between, frozen.logsf(low)],
            below,
        )
        return -float(terms.sum())

    best = scipy.optimize.minimize(
        nll, [1.0, 0.5, -0.5, 0.0], method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-10, "xatol": 1e-7}
    )
    assert solution.converged
    assert solution.objective * n <= best.fun + 1e-8
    assert solution.objective * n == pytest.approx(best.fun, abs=1e-5)


def test_only_what_has_tails_is_a_component() -> None:
    with pytest.raises(UsageError, match=r"head\.component: no logarithm of the tails of Huber: expected gaussian"):
        CensoredHead(HuberHead())


def test_the_tail_of_students_t_over_all_degrees_of_freedom() -> None:
    cases = [(df, u) for df in (0.3, 1.0, 3.7, 60.0, 1e4, 1e8) for u in (-40.0, -1.3, 0.0, 1e-3, 2.0, 8.0, 1e6)]
    df, u = (torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in zip(*cases, strict=True))
    found = log_tail(StudentT(df, torch.zeros_like(u), torch.ones_like(u)), u, True)
    with mpmath.workdps(60):
        # scipy's own is inaccurate in the far tail.
        expected = [float(mpmath.log(t_survival(mpmath.mpf(a), mpmath.mpf(b)))) for a, b in cases if a < 1e8]
        slopes = [
            float(mpmath.diff(lambda d, b=b: mpmath.log(t_survival(d, mpmath.mpf(b))), mpmath.mpf(a)))
            for a, b in cases
            if a < 100
        ]
    np.testing.assert_allclose(found.detach().numpy()[: len(expected)], expected, rtol=1e-11, atol=1e-13)
    normal = stats.norm.logsf([b for a, b in cases if a == 1e8 and abs(b) < 9])
    at = [k for k, (a, b) in enumerate(cases) if a == 1e8 and abs(b) < 9]
    np.testing.assert_allclose(found.detach().numpy()[at], normal, rtol=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), df)
    np.testing.assert_allclose(slope.numpy()[: len(slopes)], slopes, rtol=1e-9, atol=1e-13)


def config_of(*overrides: str) -> dict[str, Any]:
    return settings_of(read_settings("train", overrides, [], []) | {"run_dir": "r"})


def settings(folder: Path, low: list[float | None], high: list[float | None]) -> list[str]:
    x = np.random.default_rng(0).normal(size=len(low))
    csv.write_csv(pa.table({"x": x, "low": pa.array(low), "high": pa.array(high)}), folder / "d.csv")
    return ["data=csv", f"data.path={folder / 'd.csv'}", "data.target=[low,high]", "head=censored"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ([1.0, 3.0, 2.0] * 9, [2.0, 1.0, 2.0] * 9, "the lower bound may not be above the upper one"),
        ([1.0, None, 2.0] * 9, [2.0, None, 2.0] * 9, "have none of the targets low, high"),
    ],
)
def test_bounds_that_are_none(low: list[Any], high: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        build.build_data(config_of(*settings(tmp_path, low, high)))


def test_one_column_is_not_enough(tmp_path: Path) -> None:
    chosen = settings(tmp_path, [1.0] * 20, [2.0] * 20)
    with pytest.raises(MisfitError, match=r"two bounds: expected data\.target=\[low,high\]"):
        build.build_data(config_of(*chosen[:2], "data.target=low", "head=censored"))


def test_from_a_table_to_predictions(tmp_path: Path, mlefw: Any) -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=400)
    life = np.exp(2 + 0.7 * x) * random.weibull(1.5, 400)
    end = random.uniform(2, 20, 400)
    low, high = np.minimum(life, end), [v if v <= e else None for v, e in zip(life, end, strict=True)]
    csv.write_csv(pa.table({"x": x, "low": low, "high": pa.array(high)}), tmp_path / "d.csv")
    chosen = ("data=csv", "data.path=d.csv", "data.target=[low,high]", "head=censored", "head.component=weibull")
    done = mlefw("train", *chosen, "run_dir=r", "model=linear", "batch=full", "optimizer=lbfgs")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert abs(summary["metrics"]["train"]["nll_nats"] - summary["baseline"]["train"]["nll_nats"]) < 1e-6
    share = np.mean([v is None for v in high])
    assert summary["metrics"]["train"]["censored_share"] == pytest.approx(share, abs=0.1)
    csv.write_csv(pa.table({"x": x}), tmp_path / "new.csv")
    done = mlefw("predict", "run=r", "data.path=new.csv", "output=p.csv", "quantiles=[0.5]")
    assert done.returncode == 0, done.stderr
    table = {key: np.array(values) for key, values in csv.read_csv(tmp_path / "p.csv").to_pydict().items()}
    # What is predicted is the lifetime itself, which 90 % intervals cover though a third of them was never seen.
    covered = np.mean((life >= table["lower"]) & (life <= table["upper"]))
    assert covered == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 400))


@pytest.mark.parametrize("component", ["gaussian", "laplace", "weibull", "lognormal"])
def test_a_perfect_fit_shows_its_line(component: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=30).round(3)
    y = np.exp(0.5 + 0.25 * x) if component in ("weibull", "lognormal") else 0.5 + 0.25 * x
    rows = "\n".join(f"{a},{b!r},{b!r}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    (tmp_path / "d.csv").write_text(f"x,low,high\n{rows}\n", encoding="utf-8")
    data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=[low,high]", f"run_dir={tmp_path / 'r'}")
    assert run(["baseline", "head=censored", f"head.component={component}", *data]) == 0
    content = json.loads((tmp_path / "r" / "baseline.json").read_text(encoding="utf-8"))
    assert content["exists"] is False
    ((_, line),) = content["coefficients"].items()
    assert [row["estimate"] for row in line] == pytest.approx([0.5, 0.25], abs=1e-9)


@pytest.mark.parametrize("q", [-3.0, -0.4, 0.05, 1.0, 6.0])
def test_both_tails_of_a_generalised_gamma_at_any_shape(q: float) -> None:
    w = np.array([-6.0, -0.5, 0.4, 2.0, 9.0])
    zeros = torch.zeros(len(w), dtype=torch.float64)
    one = GeneralisedGamma(zeros, zeros + 1, zeros + q)
    with mpmath.workdps(60):
        # Reflected, w has the shape of the other sign.
        both = [[gamma_survival(sign * mpmath.mpf(at), sign * q) for at in w] for sign in (1, -1)]
        expected = [[float(mpmath.log(p)) for p in tail] for tail in both]
    for above, logs in zip((True, False), expected, strict=True):
        np.testing.assert_allclose(log_tail(one, torch.tensor(w).exp(), above), logs, rtol=1e-10)


def test_a_generalised_gamma_of_censored_times_by_a_search() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 1))
    y, last = np.exp(0.5 + 0.7 * x[:, 0] + 0.6 * np.log(random.gamma(2.0, size=40))), random.exponential(6, 40)
    low, high = np.minimum(y, last), np.where(y <= last, y, np.nan)

    def nll(theta: np.ndarray) -> float:
        scale, q = np.exp(theta[2]), 0.5
        frozen = stats.gengamma(q**-2, q / scale, scale=np.exp(theta[0] + theta[1] * x[:, 0]) * q ** (2 * scale / q))
        return -float(np.where(np.isnan(high), frozen.logsf(low), frozen.logpdf(low)).sum())

    best = scipy.optimize.minimize(nll, [0.5, 0.7, -0.5], method="BFGS")
    solution = fit(GeneralisedGammaHead(shape=0.5), x, low, high)
    assert solution.exists
    assert solution.is_global
    assert 40 * solution.objective == pytest.approx(best.fun, abs=1e-8)
    slope = solution.theta[0] * solution.problem.head.gain[0] / solution.problem.scale[0]
    assert float(slope) == pytest.approx(best.x[1], abs=1e-4)
