"""What an estimate takes is counted before it starts; many coefficients are solved for without a matrix of them."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_oracles import Sample
from exact_solving import problem_of
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlefw.baseline.conjugate_gradient import NewtonCG
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import LeftOutError, dense_work, pass_work
from mlefw.head.categorical import CategoricalHead
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics


def classes(num_rows: int = 300, num_features: int = 5, num_classes: int = 4, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, num_features))
    logits = x @ random.normal(size=(num_features, num_classes))
    y = np.array([random.choice(num_classes, p=softmax(row)) for row in logits]).astype(float)
    weight = random.integers(1, 4, num_rows).astype(float)
    return Sample(x, tuple(map(str, range(num_features))), y, weight, np.zeros(num_rows))


def digits(num_rows: int = 600) -> Rows:
    x, y = load_digits(return_X_y=True)
    one = torch.ones(num_rows, dtype=torch.float64)
    return Rows(torch.tensor(x[:num_rows]), torch.tensor(y[:num_rows]), one, torch.zeros_like(one))


@pytest.mark.parametrize("tau", [None, 0.3, 3.0])
@pytest.mark.parametrize("head", ["categorical", "bernoulli", "poisson", "gaussian_fixed"])
def test_without_a_hessian_the_estimate_is_that_of_newtons_method(head: str, tau: float | None) -> None:
    of = classes()
    of = replace(of, y=(of.y > 1).astype(float)) if head == "bernoulli" else of
    problem = problem_of(head, of, tau)
    found, exact = NewtonCG(1e12).solve(problem), Newton().solve(problem)
    assert found.converged
    assert found.matrix_free
    assert found.objective - exact.objective < 1e-9
    if found.gap is not None:
        assert found.objective - exact.objective <= found.gap + 1e-14
        assert found.gap < 1e-8
    assert float((found.theta - exact.theta).abs().max()) < 1e-3


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_under_a_prior_the_bound_agrees_with_the_dual_and_with_scikit_learn(tau: float) -> None:
    rows = digits()
    mean, scale = feature_statistics(rows, True)
    problem = Problem.of(CategoricalHead(10), rows, mean, scale, L2Prior(tau))
    found = NewtonCG(1e12).solve(problem)
    z, y, n = ((rows.x - mean) / scale).numpy(), rows.y.numpy(), len(rows.y)
    weight, bias, _ = (part.numpy() for part in problem.split(found.theta))
    logits = z @ weight.T + bias
    p = softmax(logits, axis=1)
    penalty = (weight**2).sum() / (2 * tau**2 * n)
    primal = (logsumexp(logits, axis=1) - logits[np.arange(n), y]).mean() + penalty
    gradient = (p - np.eye(10)[y]).T @ z / n
    dual = -(p * np.log(p)).sum() / n - (gradient**2).sum() * n * tau**2 / 2
    assert found.gap is not None
    assert abs(primal - dual) < 1e-7
    model = LogisticRegression(C=tau**2, tol=1e-8, max_iter=5000).fit(z, y)
    known = model.decision_function(z)
    value = (logsumexp(known, axis=1) - known[np.arange(n), y]).mean() + (model.coef_**2).sum() / (2 * tau**2 * n)
    assert primal <= value + 1e-12
    assert primal == pytest.approx(value, abs=1e-6)


def test_separated_classes_are_found_on_the_way() -> None:
    rows = digits()
    mean, scale = feature_statistics(rows, True)
    found = NewtonCG(1e12).solve(Problem.of(CategoricalHead(10), rows, mean, scale, NoPrior()))
    assert not found.exists
    assert found.infimum == 0.0
    assert "completely separated" in (found.reason or "")
    weight, bias, _ = found.problem.split(found.theta)
    logits = ((rows.x - mean) / scale) @ weight.T + bias
    assert bool((logits.argmax(1) == rows.y).all())


def test_what_takes_too_much_is_left_out_whatever_the_clock() -> None:
    problem = problem_of("categorical", classes())
    started = time.monotonic()
    with pytest.raises(LeftOutError, match=r"multiplications, more than baseline\.max_work=1000"):
        LinearBaseline(max_work=1000).solve(problem)
    assert time.monotonic() - started < 5
    # Between a few passes and Hessians of all coefficients lies the method without one.
    limit = LinearBaseline(max_work=3e6).solve(problem)
    assert limit.solver == "newton with conjugate gradients" or limit.converged


def test_what_takes_too_long_is_stopped_and_says_so() -> None:
    problem = problem_of("categorical", classes())
    with pytest.raises(LeftOutError, match=r"stopped after baseline\.max_seconds=1e-09"):
        LinearBaseline(max_seconds=1e-9).solve(problem)


def test_work_that_is_spent_ends_with_the_bound_reached() -> None:
    rows = digits()
    mean, scale = feature_statistics(rows, True)
    problem = Problem.of(CategoricalHead(10), rows, mean, scale, L2Prior(1.0))
    least = NewtonCG(1e12).solve(problem)
    found = NewtonCG(0.8 * least.num_steps * pass_work(600, 64, 10)).solve(problem)
    assert not found.converged
    assert found.gap is not None
    assert 0 < found.objective - least.objective <= found.gap
    assert "baseline.max_work" in (found.reason or "")


def test_the_count_grows_as_the_sums_do() -> None:
    assert dense_work(2000, 10, 3, 1) > 1.9 * dense_work(1000, 10, 3, 1) - 2e4
    assert pass_work(1000, 10, 20) == 2 * pass_work(1000, 10, 10)
    # Ten thousand classes on four features: left out without a step.
    assert pass_work(30_000, 4, 10_000) * 60 > 2e11


@pytest.mark.parametrize("empty", [False, True])
def test_the_null_model_of_classes_is_their_frequencies(empty: bool) -> None:
    random = np.random.default_rng(0)
    y = np.concatenate([np.arange(100), random.integers(0, 100, 400)])
    y = y[y != 7] if empty else y
    weight = random.integers(1, 4, len(y)).astype(float)
    rows = Rows(torch.zeros(len(y), 1).double(), torch.tensor(y), torch.tensor(weight), torch.zeros(len(y)).double())
    one = torch.ones(1, dtype=torch.float64)
    null = solve_null(Problem.of(CategoricalHead(100), rows, 0 * one, one, NoPrior()))
    count = np.bincount(y, weight, 100)
    share = count[count > 0] / count.sum()
    assert null.exists == (not empty)
    entropy = -(share * np.log(share)).sum()
    if not empty:
        assert null.residual < 1e-15
        assert null.objective == pytest.approx(entropy, abs=1e-13)
        return
    assert null.infimum == pytest.approx(entropy, abs=1e-13)
    smoothed = (count + 0.5) / (count.sum() + 50)
    np.testing.assert_allclose(softmax(null.theta.numpy()), smoothed, rtol=1e-12)


@pytest.mark.slow
def test_six_thousand_rows_of_784_pixels_have_an_answer_with_a_bound() -> None:
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(size=(6000, 784)) @ np.diag(random.uniform(0, 3, 784)), 0)
    logits = x @ random.normal(size=(784, 10)) * 0.1
    y = torch.tensor([random.choice(10, p=softmax(row)) for row in logits])
    one = torch.ones(6000, dtype=torch.float64)
    rows = Rows(torch.tensor(x), y, one, torch.zeros_like(one))
    mean, scale = feature_statistics(rows, True)
    started = time.process_time()
    problem = Problem.of(CategoricalHead(10), rows, mean, scale, L2Prior(1.0))
    found = LinearBaseline(max_seconds=600).solve(problem)
    assert found.gap is not None
    assert found.gap < 1e-6
    assert time.process_time() - started < 60
