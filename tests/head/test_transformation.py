"""The transformation head: its noises, the exact estimate with gaps at zero, and a whole run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import summary_of
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import comb

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import covariance
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.head.transformation import TransformationHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.testing.head import check_head

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

Array = NDArray[np.float64]
NOISES = ("normal", "logistic", "minimum")
LENGTH = 6


@pytest.mark.parametrize("noise", NOISES)
def test_the_public_checks(noise: str) -> None:
    head = TransformationHead(noise=noise, range=[-1.0, 3.0])  # type: ignore[arg-type]
    etas = [[0.3] + [0.1] * 6, [2.0, 0.5, -1.0, -3.0, 0.4, 0.0, 1.0], [9.0, 0.5, -1.0, -3.0, 0.4, 0.0, 1.0]]
    check_head(head, etas, 1e-10, knots=lambda _: torch.tensor([-1.0, 3.0], dtype=torch.float64))


def solved(x: Array, y: Array, noise: str) -> Solution:
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y), ones, 0 * ones)
    head = TransformationHead(noise=noise).double()  # type: ignore[arg-type]
    head.learn(rows.y, rows.weight)
    zeros = torch.zeros(x.shape[1], dtype=torch.float64)
    return LinearBaseline().solve(Problem.of(head, rows, zeros, zeros + 1, NoPrior()))


def objective(x: Array, y: Array, noise: str):
    """Mean NLL and its gradient in coefficients, minus the intercept, and the gaps themselves, by numpy."""
    k, design = np.arange(LENGTH + 1), np.c_[x, np.ones(len(y))]
    t = ((y - y.min()) / np.ptp(y))[:, None]
    above = (comb(LENGTH, k) * t**k * (1 - t) ** (LENGTH - k))[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    k = k[:-1]
    slopes = LENGTH * comb(LENGTH - 1, k) * t**k * (1 - t) ** (LENGTH - 1 - k) / np.ptp(y)

    def value(p: Array) -> tuple[float, Array]:
        gaps, width = p[-LENGTH:], design.shape[1]
        z, slope = above @ gaps - design @ p[:width], slopes @ gaps
        if noise == "normal":
            nll, first = z * z / 2 + np.log(2 * np.pi) / 2, z
        elif noise == "logistic":
            nll, first = np.logaddexp(0, z) + np.logaddexp(0, -z), np.tanh(z / 2)
        else:
            nll, first = np.exp(z) - z, np.exp(z) - 1
        gradient = np.r_[-design.T @ first, above.T @ first - slopes.T @ (1 / slope)] / len(y)
        return float((nll - np.log(slope)).mean()), gradient

    return value


@pytest.mark.parametrize("noise", NOISES)
def test_the_exact_estimate_is_the_optimum_under_the_constraints(noise: str) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2))
    y = np.exp(0.5 * x[:, 0] + 0.5 * random.normal(size=200))
    solution = solved(x, y, noise)
    assert solution.exists
    assert solution.is_global
    assert "gaps of the transformation at zero" in str(solution.shown_by)
    bounds = [(None, None)] * 3 + [(1e-12, None)] * LENGTH
    options = {"maxiter": 20_000, "maxfun": 100_000, "ftol": 1e-16, "gtol": 1e-11}
    start = np.r_[0.0, 0.0, 2.0, np.ones(LENGTH)]
    value = objective(x, y, noise)
    known = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    assert solution.objective == pytest.approx(known.fun, abs=1e-10)
    weight, _, shared = solution.problem.split(solution.theta)
    np.testing.assert_allclose(weight[0], known.x[:2], atol=1e-6)
    np.testing.assert_allclose(shared.exp(), known.x[3:], atol=1e-5)
    # Standard errors are those with the gaps of zero held there.
    at = np.r_[np.arange(3), 3 + np.flatnonzero(known.x[3:] > 1e-6)]
    steps = 1e-5 * np.eye(len(known.x))[at]
    hessian = np.stack([(value(known.x + s)[1] - value(known.x - s)[1])[at] / 2e-5 for s in steps])
    expected = np.sqrt(np.linalg.inv(hessian * len(y)).diagonal()[:2])
    found = covariance(solution, "observed").matrix.diagonal().sqrt()[:2]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_linear_transformation_with_normal_noise_is_least_squares() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(150, 1))
    y = 1 + 2 * x[:, 0] + 0.7 * random.normal(size=150)
    ones = torch.ones(150, dtype=torch.float64)
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y), ones, 0 * ones)
    head = TransformationHead(order=1, noise="normal").double()
    head.learn(rows.y, rows.weight)
    zeros = torch.zeros(1, dtype=torch.float64)
    solution = LinearBaseline().solve(Problem.of(head, rows, zeros, zeros + 1, NoPrior()))
    residual = y - np.polyval(np.polyfit(x[:, 0], y, 1), x[:, 0])
    assert solution.is_global
    assert solution.objective == pytest.approx(0.5 * np.log(2 * np.pi * np.exp(1) * (residual**2).mean()), abs=1e-10)


def test_what_is_refused() -> None:
    wrong: tuple[dict[str, object], ...] = (
        {"order": 0},
        {"order": 51},
        {"noise": "cauchy"},
        {"gaps": 1.0},
        {"range": [1.0, 1.0]},
        {"range": [0.0]},
    )
    for settings in wrong:
        with pytest.raises(UsageError, match=rf"head\.{next(iter(settings))}="):
            TransformationHead(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("gaps", ["shared", "predicted"])
def test_a_run_keeps_its_range(gaps: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=400)
    y = np.exp(x + 0.3 * random.normal(size=400))
    np.savetxt(tmp_path / "d.csv", np.c_[x, y], delimiter=",", header="x,y", comments="")
    where, table = tmp_path / "r", f"data.path={tmp_path / 'd.csv'}"
    settings = ["head=transformation", f"head.gaps={gaps}", "head.order=4", "data=csv", table, "data.target=y"]
    settings += [
        f"trainer.max_epochs={40 if gaps == 'shared' else 8}",
        "logger=none",
        "report=false",
        "plots=false",
        f"run_dir={where}",
    ]
    settings += ["model=linear", *(["batch=full", "optimizer=lbfgs"] if gaps == "shared" else ["baseline=none"])]
    assert run(["train", *settings, f"run_dir={where}"]) == 0
    summary = summary_of(where)
    assert summary["metrics"]["test"]["nll_nats"] < summary["null"]["test"]["nll_nats"] - 0.1
    if gaps == "shared":
        assert summary["distance"]["excess_objective"] < 1e-5
    assert run(["predict", f"run={where}", table, f"output={tmp_path / 'p.csv'}"]) == 0
