"""Problems of many rows: quasi-Newton against Newton, features far from zero, sampled rank, proofs of optimality."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_oracles import Sample
from exact_solving import problem_of
from scipy import optimize
from scipy.special import expit
from torch import Tensor

from mlefw.baseline import quasi_newton
from mlefw.baseline.certificate import excess_bound
from mlefw.baseline.collinear import independent_columns
from mlefw.baseline.linear import LinearBaseline, solver_for
from mlefw.baseline.moments import moments
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import origin
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior


def sample(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, offset: np.ndarray | None = None) -> Sample:
    """Rows whose columns have no names to speak of."""
    ones = np.ones(len(y))
    names = tuple(f"x{j}" for j in range(x.shape[1]))
    return Sample(x, names, y, ones if weight is None else weight, 0 * ones if offset is None else offset)


def simulated(
    head: str, num_rows: int = 8000, num_features: int = 9, far: float = 0.0, weighted: bool = True
) -> Sample:
    """Correlated features of very different spreads, `far` of them away from zero, with weights and offsets."""
    random = np.random.default_rng(1)
    x = random.normal(size=(num_rows, num_features)) @ random.normal(size=(num_features, num_features))
    signal = x @ random.normal(size=(num_features, 3))
    signal = 0.8 * signal / signal.std(0)
    x = (x + far) * 10.0 ** random.integers(-3, 4, num_features)
    offset = 0.2 * random.normal(size=num_rows) if weighted else np.zeros(num_rows)
    eta = signal[:, 0] + offset
    draws = {
        "gaussian": lambda: 50 + eta + random.normal(size=num_rows),
        "heteroscedastic": lambda: eta + np.exp(0.4 * signal[:, 1]) * random.normal(size=num_rows),
        "bernoulli": lambda: (random.random(num_rows) < expit(eta)).astype(float),
        "poisson": lambda: random.poisson(np.exp(eta)).astype(float),
        "categorical": lambda: (signal + random.gumbel(size=signal.shape)).argmax(1).astype(float),
    }
    weight = random.integers(0, 4, num_rows).astype(float) if weighted else np.ones(num_rows)
    return sample(x, draws[head](), weight, offset)


@pytest.fixture(autouse=True)
def _few_rows_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows stand for many."""
    monkeypatch.setattr(quasi_newton, "_WORTH", 0.0)


def in_standard_errors(problem: Problem, change: Tensor, theta: Tensor) -> float:
    """The length of a change of theta, in the total information at theta."""
    free = problem.free
    hessian = problem.derivatives(theta).hessian[free][:, free]
    return float(problem.population * change[free] @ hessian @ change[free]) ** 0.5


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("prior", [NoPrior(), L2Prior(0.05)], ids=["none", "l2"])
@pytest.mark.parametrize("head", ["bernoulli", "poisson", "categorical"])
def test_quasi_newton_ends_where_newton_does(head: str, prior: Prior, far: float) -> None:
    problem = replace(problem_of(head, simulated(head, far=far)), prior=prior)
    found = Newton().solve(problem)
    expected = Newton().solve_from(problem, origin(problem))
    assert found.solver == "quasi-newton"
    assert expected.converged
    assert in_standard_errors(problem, found.theta - expected.theta, expected.theta) < 1e-5
    assert found.objective == pytest.approx(expected.objective, abs=1e-13)


def test_more_features_than_a_sample_can_tell_apart() -> None:
    """Ten classes and 30 features have too many coefficients for a sample: the features' products serve instead."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 30)) * np.geomspace(1, 1e3, 30)
    y = (x / np.geomspace(1, 1e3, 30) @ random.normal(size=(30, 10)) / 5 + random.gumbel(size=(4000, 10))).argmax(1)
    problem = problem_of("categorical", sample(x, y.astype(float)))
    found = Newton().solve(problem)
    expected = Newton().solve_from(problem, origin(problem))
    assert found.solver == "quasi-newton"
    assert in_standard_errors(problem, found.theta - expected.theta, expected.theta) < 1e-5


def test_separated_classes_are_still_recognised_among_many_rows() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 9))
    y = (x @ random.normal(size=9) > 0).astype(float)
    problem = problem_of("bernoulli", sample(x, y))
    solution = LinearBaseline().solve(problem)
    assert not solution.exists
    assert solution.infimum == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("far", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("weighted", [True, False])
def test_moments_are_those_of_centred_columns(far: float, weighted: bool) -> None:
    of = simulated("gaussian", far=far, weighted=weighted)
    problem = problem_of("gaussian", of)
    found = moments(problem)
    x, w = of.x.astype(np.longdouble), of.weight.astype(np.longdouble)
    z = (x - (w @ x) / w.sum()) / problem.scale.numpy()
    y = of.y - of.offset
    raw = (y - (w @ y) / w.sum()) / float(problem.head.gain[0])
    products = np.asarray(z.T @ (w[:, None] * z), dtype=float)
    np.testing.assert_allclose(found.gram, products, rtol=1e-9, atol=1e-9 * products.diagonal().max())
    root = np.sqrt(w)[:, None]
    weight, square = np.linalg.lstsq(np.asarray(root * z, float), np.asarray(root[:, 0] * raw, float), rcond=None)[:2]
    np.testing.assert_allclose(found.weight, weight, rtol=1e-8, atol=1e-10)
    assert found.residual_square == pytest.approx(float(square[0]), rel=1e-9)


def test_a_column_that_a_sample_cannot_judge_is_judged_by_all_rows() -> None:
    of = simulated("gaussian", num_rows=9000, weighted=False)
    rare = np.zeros(9000)
    rare[7] = 1.0
    x = np.column_stack([of.x, rare, rare * 3])
    problem = problem_of("gaussian", sample(x, of.y))
    kept, dropped = independent_columns(problem)
    assert dropped.tolist() == [10]
    assert 9 in kept.tolist()


PRIORS = {"none": NoPrior(), "l2": L2Prior(0.1), "l1": L1Prior(0.02), "elastic_net": ElasticNetPrior(0.2, 0.05)}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("head", ["bernoulli", "poisson", "gaussian_fixed"])
def test_the_bound_holds_near_the_optimum(head: str, prior: str) -> None:
    of = simulated("gaussian" if head == "gaussian_fixed" else head, num_rows=300)
    problem = replace(problem_of(head, of), prior=PRIORS[prior])
    best = solver_for(problem).solve(problem)
    bound = excess_bound(best)
    assert bound is not None
    assert bound < 1e-12
    generator = torch.Generator().manual_seed(0)
    for size in (1e-4, 1e-3, 1e-2):
        moved = best.theta + size * torch.randn(problem.size, dtype=torch.float64, generator=generator)
        off = replace(best, theta=moved, gap=None, known=None)
        bound = excess_bound(off)
        assert bound is not None
        excess = problem.value(moved) - best.objective
        assert 0 < excess <= bound


def test_several_starts_find_the_better_of_two_scales() -> None:
    """The solver's end is no worse than any of many random descents by an independent optimiser."""
    of = simulated("heteroscedastic", num_rows=150, num_features=4)
    problem = problem_of("heteroscedastic", of)
    found = Newton().solve(problem)
    assert found.converged
    assert not found.is_global
    random = np.random.default_rng(0)

    def function(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.slope(torch.from_numpy(theta))
        return value, gradient.numpy()

    ends = [
        optimize.minimize(function, random.normal(size=problem.size), jac=True, method="BFGS").fun for _ in range(10)
    ]
    assert found.objective <= min(ends) + 1e-9
