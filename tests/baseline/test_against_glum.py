"""MAP against glum: its penalty per observation is 1 / (n tau²) for a Gaussian prior, 1 / (n b) for a Laplace one."""

import numpy as np
import pytest
import torch
from exact_oracles import Sample, data, varied
from exact_solving import new_head, rows_of
from glum import GeneralizedLinearRegressor

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.rows.standardize import feature_statistics

FAMILY = {"gaussian_fixed": "normal", "bernoulli": "binomial", "poisson": "poisson"}
SIGMA = 20.0


def standardised(of: Sample) -> np.ndarray:
    mean = np.average(of.x, axis=0, weights=of.weight)
    return (of.x - mean) / np.sqrt(np.average((of.x - mean) ** 2, axis=0, weights=of.weight))


def by_glum(head: str, of: Sample, l1: float, l2: float) -> np.ndarray:
    """Weights and intercept for −log p = l1 |w| + ½ l2 w² in all."""
    factor = SIGMA**2 if head == "gaussian_fixed" else 1.0
    strength = factor * (l1 + l2) / of.weight.sum()
    model = GeneralizedLinearRegressor(
        family=FAMILY[head],
        alpha=strength,
        l1_ratio=l1 / (l1 + l2),
        gradient_tol=1e-10,
        max_iter=2000,
        scale_predictors=False,
    )
    model.fit(standardised(of), of.y, sample_weight=of.weight, offset=of.offset)
    return np.r_[model.coef_, model.intercept_]


def by_mlefw(head: str, of: Sample, prior: Prior) -> Solution:
    rows = rows_of(of, head)
    return LinearBaseline().solve(
        Problem.of(new_head(head, scale=SIGMA), rows, *feature_statistics(rows, True), prior.double())
    )


PRIORS = {
    "l2": (L2Prior(0.3), 0.0, 0.3**-2),
    "l1": (L1Prior(0.1), 10.0, 0.0),
    "elastic_net": (ElasticNetPrior(l2_scale=0.5, l1_scale=0.2), 5.0, 4.0),
}


@pytest.mark.parametrize("variant", ["plain", "weight", "weight and offset"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    ("head", "name"),
    [("gaussian_fixed", "diabetes"), ("bernoulli", "breast_cancer"), ("bernoulli", "spector"), ("poisson", "cpunish")],
)
def test_map(head: str, name: str, prior: str, variant: str) -> None:
    of = varied(data(name), variant)
    made, l1, l2 = PRIORS[prior]
    solution = by_mlefw(head, of, made)
    assert solution.converged
    expected = by_glum(head, of, l1, l2)
    found = solution.theta.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    # Whoever has the lower objective is nearer to the optimum, and glum is the one with a tolerance.
    theirs = solution.problem.value(torch.tensor(expected))
    assert solution.objective <= theirs + 1e-13 * abs(theirs)
    if l1:
        assert ((found == 0) == (np.abs(expected) < 1e-7)).all()
