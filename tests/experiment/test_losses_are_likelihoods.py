"""Values and gradients of losses and NLL, to rounding."""

import pytest
from scipy import stats

from mlefw.experiment.losses_are_likelihoods import LossesAreLikelihoods, compared


def test_losses_are_likelihoods_to_rounding() -> None:
    experiment = LossesAreLikelihoods()
    stated = {"MSE": 0.98, "MAE": 1.3, "Huber": 0.49, "BCE": 1.0, "Cross-entropy": 1.0, "Poisson": 1.0}
    assert {pair.name: pair.ratio for pair in experiment.pairs()} == pytest.approx(stated)
    for pair in experiment.pairs():
        off, low, high = compared(pair)
        assert off < 1e-10 * max(1.0, float(pair.head.nll(pair.eta, pair.y).abs().max()))
        assert low == pytest.approx(pair.ratio, rel=1e-7)
        assert high == pytest.approx(pair.ratio, rel=1e-7)


def test_constants_are_those_of_scipys_densities() -> None:
    pairs = {pair.name: pair for pair in LossesAreLikelihoods(sigma=0.3, b=2.0).pairs()}
    assert float(pairs["MSE"].constant) == pytest.approx(-stats.norm.logpdf(0, 0, 0.3))
    assert float(pairs["MAE"].constant) == pytest.approx(-stats.laplace.logpdf(0, 0, 2.0))


def test_stirling_is_off_by_what_the_reference_says() -> None:
    findings = LossesAreLikelihoods(n=10).run()
    off = {row[0]: row[1] for row in findings.tables[1].rows}
    assert (off["2"], off["3"], off["10"]) == pytest.approx((-0.0413, -0.0277, -0.0083), abs=5e-5)
