"""The exact side knows no floor of scales: where the noise is a hundred-thousandth of sd(y), its line is the MLE's."""

import math

import numpy as np
import pytest
import torch
from exact_oracles import Sample
from exact_solving import problem_of
from scipy import stats

from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.moments import moments
from mlefw.baseline.predictor import as_objective
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective, evaluate
from mlefw.prior.none import NoPrior
from mlefw.rows.standardize import Standardized
from mlefw.run.placement import place
from mlefw.score.figures import floored_share

HEADS = ("gaussian", "laplace", "huber", "student_t", "lognormal", "gamma", "heteroscedastic")


def nearly_exact(positive: bool) -> Sample:
    random = np.random.default_rng(4)
    n = 120
    x = random.normal(size=(n, 2))
    line, noise = 3 * x[:, 0] - x[:, 1], 1e-5 * random.standard_t(3, size=n)
    y = np.exp(line + noise) if positive else 1000 * (line + noise)
    return Sample(x, ("a", "b"), y, np.ones(n), np.zeros(n))


@pytest.mark.parametrize("name", HEADS)
def test_the_line_beside_a_run_is_the_maximum_of_the_likelihood(name: str) -> None:
    of = nearly_exact(name in ("lognormal", "gamma"))
    problem = problem_of(name, of)
    solution = LinearBaseline().solve(problem)
    assert solution.exists
    head = problem.head
    run = place(_floored(name, of), solve_null(problem))
    network = Standardized(Linear(2, head.eta_dim).double(), problem.mean, problem.scale)
    objective = Objective(network, run, NoPrior(), problem.population)
    assert float(objective.head.floor) > 0
    exact = evaluate(as_objective(solution, objective), problem.rows).mean(problem.rows)
    assert exact == pytest.approx(solution.objective, abs=1e-9)
    design = np.column_stack([np.ones(len(of.y)), of.x])
    if name in ("gaussian", "lognormal"):
        target = np.log(of.y) if name == "lognormal" else of.y
        rss = float(np.linalg.lstsq(design, target, rcond=None)[1][0])
        nll = -stats.norm.logpdf(0, scale=math.sqrt(rss / len(target))) + 0.5
        assert exact == pytest.approx(nll + (np.log(of.y).mean() if name == "lognormal" else 0), abs=1e-6)
    # The network that would say the same is held by its floor, and that is what a run warns of.
    weight, bias, shared = solution.problem.split(solution.theta)
    network.model.load(weight, bias)
    with torch.no_grad():
        run.shared.copy_(shared)
    run.center.copy_(problem.head.center)
    assert floored_share(objective, evaluate(objective, problem.rows), problem.rows) > 0.9


def _floored(name: str, of: Sample):
    from exact_solving import new_head, rows_of

    from mlefw.rows.standardize import target_statistics

    head = new_head(name)
    head.set_units(*target_statistics(rows_of(of, name)))
    return head


@pytest.mark.parametrize("num_features", [30, 37, 38])
@pytest.mark.parametrize("seed", range(4))
def test_residual_squares_are_sums_of_squares(num_features: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(40, num_features)) @ np.diag(10.0 ** random.uniform(-3, 3, num_features)) + 50
    y = x @ random.normal(size=num_features) + 1e-9 * random.normal(size=40)
    problem = problem_of("gaussian", Sample(x, tuple(map(str, range(num_features))), y, np.ones(40), np.zeros(40)))
    found = moments(problem)
    assert found.residual_square >= 0
    z = (x - x.mean(0)) / x.std(0)
    exact = np.linalg.lstsq(np.column_stack([np.ones(40), z]), y / y.std(), rcond=None)[0]
    left = y / y.std() - np.column_stack([np.ones(40), z]) @ exact
    assert found.residual_square <= max(2 * left @ left, 1e-20)
