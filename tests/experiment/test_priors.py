"""Exact MAP and training under each prior, beside scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, Ridge

from mlefw.experiment.priors import TRUTH, Priors
from mlefw.report.findings import Findings


@pytest.fixture(scope="module")
def findings() -> Findings:
    return Priors().run()


def test_coefficients_are_those_of_scikit_learn_and_training_finds_them(findings: Findings) -> None:
    rows = Priors().problem().rows
    x, y, n, variance = rows.x.numpy(), rows.y.numpy(), 50, 0.25
    l1, l2 = variance / (n * 0.08), variance / (n * 0.3**2)
    exact = {"tol": 1e-14, "max_iter": 100_000}
    oracles = {
        "none": LinearRegression(),
        "l2": Ridge(alpha=variance / 0.3**2),
        "l1": Lasso(alpha=variance / (n * 0.05), **exact),
        "elastic net": ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), **exact),
    }
    for column, (name, oracle) in enumerate(oracles.items(), start=2):
        found = np.array([float(row[column]) for row in findings.tables[0].rows])
        expected = oracle.fit(x, y).coef_
        assert found == pytest.approx(expected, abs=1e-7)
        assert ((found == 0) == (expected == 0)).all()
        assert findings.values[f"{name}_off"] < 1e-8
        assert findings.values[f"{name}_zeros"] == findings.values[f"{name}_trained_zeros"] == (expected == 0).sum()


def test_selection_and_nats(findings: Findings) -> None:
    values = findings.values
    assert values["l2_zeros"] == values["none_zeros"] == 0
    assert values["l1_zeros"] >= 4
    assert values["l1_error"] < 1.0
    # −log of a Laplace density at a point: Σ|w| / b + d log 2b, by hand from the coefficients.
    weights = [float(row[4]) for row in findings.tables[0].rows]
    by_hand = sum(map(abs, weights)) / 0.05 + len(TRUTH) * np.log(0.1)
    assert values["l1_nats"] == pytest.approx(by_hand)
