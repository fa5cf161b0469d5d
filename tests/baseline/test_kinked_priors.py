"""Exact MAP estimates with zeros: scikit-learn, linear programming, and optimality conditions written here."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar
from sklearn import datasets
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics


def solve(head: Head, x: np.ndarray, y: np.ndarray, prior: Prior) -> Solution:
    rows = Rows(torch.tensor(x), torch.tensor(y), torch.ones(len(y)).double(), torch.zeros(len(y)).double())
    if head.target == "numeric":
        head.set_units(*target_statistics(rows))
    return LinearBaseline().solve(Problem.of(head, rows, *feature_statistics(rows, True), prior))


def weights(solution: Solution) -> np.ndarray:
    return solution.problem.split(solution.theta)[0].numpy()


def standardized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


X, Y = datasets.load_diabetes(return_X_y=True)
N, SPREAD = len(Y), Y.std()


@pytest.mark.parametrize(("scale", "num_zeros"), [(0.3, 1), (0.05, 3), (0.01, 6)])
def test_lasso(scale: float, num_zeros: int) -> None:
    solution = solve(GaussianHead(scale=50.0), X, Y, L1Prior(scale))
    alpha = 50.0**2 / (N * scale * SPREAD)
    oracle = Lasso(alpha=alpha, tol=1e-14, max_iter=10**6).fit(standardized(X), Y)
    np.testing.assert_allclose(weights(solution)[0] * SPREAD, oracle.coef_, atol=1e-9)
    assert int((weights(solution) == 0).sum()) == num_zeros == int((oracle.coef_ == 0).sum())
    assert solution.is_global
    assert solution.residual < 1e-12


@pytest.mark.parametrize("scale", [0.3, 0.05, 0.01])
def test_elastic_net(scale: float) -> None:
    solution = solve(GaussianHead(scale=50.0), X, Y, ElasticNetPrior(l2_scale=0.3, l1_scale=scale))
    l1, l2 = 50.0**2 / (N * scale * SPREAD), 50.0**2 / (N * 0.3**2 * SPREAD**2)
    oracle = ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), tol=1e-14, max_iter=10**6).fit(standardized(X), Y)
    np.testing.assert_allclose(weights(solution)[0] * SPREAD, oracle.coef_, atol=1e-9)


def test_learnt_scale_is_the_best_over_all_scales() -> None:
    """The profile over sigma, each point a lasso of scikit-learn, has its minimum where the solver ends."""
    z, scale = standardized(X), 0.05

    def profile(log_sigma: float) -> float:
        sigma = np.exp(log_sigma)
        fit = Lasso(alpha=sigma**2 / (N * scale * SPREAD), tol=1e-14, max_iter=10**6).fit(z, Y)
        square = ((Y - fit.predict(z)) ** 2).mean()
        penalty = np.abs(fit.coef_ / SPREAD).sum() / scale + 10 * np.log(2 * scale)
        return float(0.5 * np.log(2 * np.pi) + log_sigma + square / (2 * sigma**2) + penalty / N)

    best = minimize_scalar(profile, bounds=(np.log(20), np.log(100)), method="bounded", options={"xatol": 1e-9})
    solution = solve(GaussianHead(), X, Y, L1Prior(scale))
    assert solution.objective == pytest.approx(best.fun, abs=1e-9)
    assert not solution.is_global


def test_logistic_lasso() -> None:
    x, y = datasets.load_breast_cancer(return_X_y=True)
    solution = solve(BernoulliHead(), x, y.astype(float), L1Prior(0.1))
    oracle = LogisticRegression(C=0.1, l1_ratio=1, solver="saga", tol=1e-10, max_iter=10**5).fit(standardized(x), y)
    np.testing.assert_allclose(weights(solution), oracle.coef_, atol=1e-6)
    assert int((weights(solution) == 0).sum()) == int((oracle.coef_ == 0).sum()) == 22


@pytest.mark.parametrize("kind", ["categorical", "poisson"])
@pytest.mark.parametrize(
    "prior", [L1Prior(0.2), ElasticNetPrior(l2_scale=0.5, l1_scale=0.2)], ids=["l1", "elastic_net"]
)
def test_optimality_conditions(kind: str, prior: Prior) -> None:
    """At a zero the gradient of the likelihood is within the kink; elsewhere it balances the prior exactly."""
    if kind == "categorical":
        x, y = datasets.load_wine(return_X_y=True)
        solution = solve(CategoricalHead(3), x, y, prior)
        z = standardized(x)
        w, b, _ = (part.numpy() for part in solution.problem.split(solution.theta))
        eta = z @ w.T + b
        p = np.exp(eta - eta.max(1, keepdims=True))
        slope = p / p.sum(1, keepdims=True) - np.eye(3)[y]
    else:
        random = np.random.default_rng(0)
        x = random.normal(size=(300, 8))
        y = random.poisson(np.exp(0.3 * x[:, 0] - 0.2 * x[:, 1])).astype(float)
        solution = solve(PoissonHead(), x, y, prior)
        z = standardized(x)
        w, b, _ = (part.numpy() for part in solution.problem.split(solution.theta))
        slope = np.exp(z @ w.T + b) - y[:, None]
    assert solution.converged
    gradient = slope.T @ z
    if isinstance(prior, ElasticNetPrior):
        gradient = gradient + w / 0.5**2
    zero = w == 0
    assert zero.any()
    assert (~zero).any()
    assert np.abs(gradient[zero]).max() <= 1 / 0.2 + 1e-9
    np.testing.assert_allclose(gradient[~zero], -np.sign(w[~zero]) / 0.2, atol=1e-7)
    np.testing.assert_allclose(slope.sum(0), 0, atol=1e-7)


@pytest.mark.parametrize("scale", [0.3, 0.05, 0.01])
def test_least_absolute_deviations_with_a_laplace_prior(scale: float) -> None:
    """HiGHS on min Σ|r| / b + Σ|w| / scale with everything split into positive and negative parts."""
    solution = solve(LaplaceHead(scale=50.0), X, Y, L1Prior(scale))
    z, b = standardized(X), 50.0
    p = z.shape[1]
    cost = np.concatenate([np.full(2 * p, 1 / scale), [0.0, 0.0], np.full(2 * N, 1 / b)])
    one = np.ones((N, 1))
    equal = np.hstack([SPREAD * z, -SPREAD * z, one, -one, np.eye(N), -np.eye(N)])
    oracle = linprog(cost, A_eq=equal, b_eq=Y, method="highs-ds")
    expected = oracle.fun / N + np.log(2 * b) + p * np.log(2 * scale) / N
    assert solution.objective == pytest.approx(expected, abs=1e-10)
    assert int((weights(solution) == 0).sum()) >= int((np.abs(oracle.x[:p] - oracle.x[p : 2 * p]) < 1e-12).sum())
