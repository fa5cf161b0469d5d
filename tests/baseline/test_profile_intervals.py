"""Profile likelihood intervals: published values, closed forms, and an optimiser of scipy on a profile of its own."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_oracles import data, varied
from exact_solving import new_head, problem_of, solve
from scipy import stats
from scipy.optimize import brentq, minimize

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import directions
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.baseline.profile import Profile, not_profiled
from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.prior.none import NoPrior
from mlefw.report.profile_table import PROFILE, with_profiles
from mlefw.rows.rows import Rows

CHI2 = stats.chi2.isf(0.05, 1)
X = np.array([0.5, 1.0, 2.0, -0.5, -1.0, -2.0])


def solution_of(head: str, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> Solution:
    features, target = torch.tensor(x).double(), torch.tensor(y).double()
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(features, target, ones, torch.zeros_like(ones))
    problem = Problem.of(
        new_head(head, scale=scale), rows, features.new_zeros(x.shape[1]), features.new_ones(x.shape[1]), NoPrior()
    )
    return LinearBaseline().solve(problem)


def ends(solution: Solution, table: str, row: int) -> tuple[float, float]:
    line, shift = directions(solution, None)[table][row]
    low, high = Profile(solution).interval(line, None)
    return low + shift, high + shift


def test_one_count_of_seven() -> None:
    low, high = ends(solution_of("poisson", np.zeros((1, 0)), np.array([7])), "rate", 0)
    assert math.exp(low) == pytest.approx(3.00778435263453353, rel=1e-11)
    assert math.exp(high) == pytest.approx(13.5377146376988450, rel=1e-11)


def test_separated_classes_have_half_an_interval() -> None:
    found = solution_of("bernoulli", X[:, None], (X > 0) * 1.0)
    assert found.exists is False
    low, high = ends(found, "logits", 1)
    assert low == pytest.approx(0.9358235015, abs=1e-10)
    # The intercept, free: by symmetry the profile at a slope is at intercept zero, whose NLL is written out here.
    assert low == pytest.approx(brentq(lambda b: 4 * np.logaddexp(0, -b * X[:3]).sum() - CHI2, 0.1, 5), rel=1e-9)
    assert high == math.inf
    assert ends(found, "logits", 0) == (-math.inf, math.inf)


def test_a_normal_mean_of_known_scale_has_walds_interval() -> None:
    of = data("stackloss")
    found = solution_of("gaussian_fixed", of.x, of.y, scale=3.0)
    design = np.column_stack([np.ones(len(of.y)), of.x])
    error = 3 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    params = np.linalg.lstsq(design, of.y, rcond=None)[0]
    for row in range(4):
        expected = params[row] + np.array([-1, 1]) * math.sqrt(CHI2) * error[row]
        assert ends(found, "loc", row) == pytest.approx(expected, rel=1e-8)


def test_least_squares_with_a_learnt_scale() -> None:
    """n log(RSS / RSS₀) = χ² at RSS₀ + (b − b₀)² / c; of the scale n (s₀²/s² − 1 + log s²/s₀²) = χ²."""
    of = data("stackloss")
    found, n = solve("gaussian", of), len(of.y)
    design = np.column_stack([np.ones(n), of.x])
    params, rss = np.linalg.lstsq(design, of.y, rcond=None)[:2]
    half = np.sqrt(float(rss[0]) * math.expm1(CHI2 / n) * np.diag(np.linalg.inv(design.T @ design)))
    for row in range(4):
        assert ends(found, "loc", row) == pytest.approx(params[row] + np.array([-1, 1]) * half[row], rel=1e-8)
    top = math.log(float(rss[0]) / n) / 2

    def excess(log_scale: float) -> float:
        return n * (math.exp(2 * (top - log_scale)) - 1 + 2 * (log_scale - top)) - CHI2

    expected = brentq(excess, top - 2, top, xtol=1e-13), brentq(excess, top, top + 2, xtol=1e-13)
    assert ends(found, "scale", 0) == pytest.approx(expected, rel=1e-8)


def nlls(y: np.ndarray, weight: np.ndarray, offset: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    """Total NLL of a linear predictor by scipy."""
    return {
        "poisson": lambda eta: -float(weight @ stats.poisson.logpmf(y, np.exp(eta + offset))),
        "bernoulli": lambda eta: float(weight @ np.logaddexp(0, -(2 * y - 1) * (eta + offset))),
    }


@pytest.mark.parametrize(("head", "name"), [("poisson", "cpunish"), ("bernoulli", "spector")])
def test_profiles_with_weights_and_offsets_are_those_of_scipy(head: str, name: str) -> None:
    of = varied(data(name), "weight and offset")
    table = {"poisson": "rate", "bernoulli": "logits"}[head]
    found = LinearBaseline().solve(problem_of(head, of))
    nll = nlls(of.y, of.weight, of.offset)[head]
    design = np.column_stack([np.ones(len(of.y)), (of.x - of.x.mean(0)) / of.x.std(0)])
    least = found.objective * found.problem.population
    for row in (1, of.x.shape[1]):
        rest = np.delete(design, row, 1)
        for end in ends(found, table, row):
            fixed = design[:, row] * end * of.x.std(0)[row - 1]
            best = minimize(lambda b, f=fixed, z=rest: nll(f + z @ b), np.zeros(rest.shape[1]), tol=1e-12)
            assert 2 * (best.fun - least) == pytest.approx(CHI2, rel=2e-5)


def test_what_has_no_profile_says_why() -> None:
    of = data("stackloss")
    assert "kinks" in str(not_profiled(solve("laplace", of)))
    assert "prior" in str(not_profiled(solve("gaussian", of, tau=1.0)))
    perfect = solution_of("gaussian", X[:, None], 2 * X)
    assert "bounded" in str(not_profiled(perfect))
    content = {"coefficients": {}}
    found = with_profiles(content, solve("laplace", of), list(of.names), None, "default", 60.0)
    assert found["intervals"].startswith("Wald, since")
    late = with_profiles(content, solve("gaussian", of), list(of.names), None, "default", 1e-9)
    assert late["intervals"].startswith("Wald, since")
    for settings, words in (({"intervals": "exact"}, "wald or profile"), ({"standard_errors": "hc1"}, "noise model")):
        with pytest.raises(UsageError, match=words):
            LinearBaseline(**{"intervals": "profile", **settings})  # type: ignore[arg-type]


def test_the_command_states_infinite_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"{x},{int(x > 0)}\n" for x in X))
    given = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "baseline.intervals=profile")
    table = tmp_path / "c.csv"
    assert run(["baseline", "head=bernoulli", *given, f"table={table}", f"run_dir={tmp_path / 'b'}"]) == 0
    assert "0.93582     inf" in capfd.readouterr().out
    content = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    assert content["intervals"] == PROFILE
    assert content["profile"]["coefficients"]["logits"][1]["ci_high"] == "inf"
    assert float(table.read_text().splitlines()[2].split(",")[7]) == pytest.approx(0.9358235015, abs=1e-10)
    assert run(["baseline", "head=bernoulli", *given, "prior=l2", f"run_dir={tmp_path / 'c'}"]) == 2
    assert "expected intervals=wald or prior=none" in capfd.readouterr().err.replace("\n", " ")
