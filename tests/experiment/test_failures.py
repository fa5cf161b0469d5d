"""Each failure is seen for what it is, and its remedy works."""

import numpy as np
import pytest

from mlefw.experiment.failures import DEPTHS, Failures
from mlefw.report.findings import Findings


@pytest.fixture(scope="module")
def findings() -> Findings:
    return Failures().run()


def test_failures_are_named_and_remedies_work(findings: Findings) -> None:
    values = findings.values
    assert values["dummy_exists"] == values["separated_exists"] == values["single_exists"] == 0
    assert all(row[1] != "a finite estimate" for row in findings.tables[0].rows)
    assert values["separated_infimum"] == pytest.approx(0, abs=1e-9)
    # One row of 30 falls by one nat a unit of its log sigma, until the floor.
    free = [values[f"free_{depth:g}"] for depth in DEPTHS]
    assert np.diff(free) == pytest.approx(np.diff(DEPTHS) / 30)
    assert values["floored_-10"] == pytest.approx(values["floored_-20"])
    # Slope and intercept of one row with x = 1, y = 3, σ = 1 and a flat intercept: the prior leaves a slope of zero.
    assert values["single_map"] == pytest.approx(0, abs=1e-9)
    assert values["mae_median"] < 0.5 * values["mse_median"]


def test_weights_and_focus_are_other_likelihoods(findings: Findings) -> None:
    values = findings.values
    assert values["plain_mean"] == pytest.approx(values["observed"], rel=0.25)
    assert values["plain_gap"] < 0.005
    assert values["weighted_mean"] > 5 * values["observed"]
    assert values["focal_mean"] > 2 * values["observed"]
    assert values["plain_nll"] < values["focal_nll"] < values["weighted_nll"]
    assert values["inside"] > 0.85
    assert values["outside"] < 0.5
