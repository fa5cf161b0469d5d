"""NLL, entropy and KL beside scipy; excess of misspecified fits beside quadrature and theory."""

import numpy as np
import pytest
from scipy import integrate, stats

from mlefw.experiment.kl import CENTERS, MEAN, SCALES, SD, SHARES, TRUE, Kl, excess_kl, fitted, predicted_excess


def test_nll_is_entropy_plus_kl() -> None:
    values = Kl(replicates=2, sizes=[10]).run().values
    models = {"truth": np.array(TRUE), "uniform": np.full(6, 1 / 6), "reversed": np.array(TRUE[::-1])}
    for name, model in models.items():
        assert values[f"{name}_kl"] == pytest.approx(stats.entropy(TRUE, model), abs=1e-12)
        assert values[f"{name}_nll"] == pytest.approx(-np.dot(TRUE, np.log(model)), abs=1e-12)
        assert abs(values[f"{name}_off"]) < 1e-12
        # The uniform model gives every draw the same NLL, and so has no sampling error.
        assert abs(values[f"{name}_sampled"] - values[f"{name}_nll"]) <= 4 * values[f"{name}_error"] + 1e-12
    assert values["uniform_perplexity"] == pytest.approx(6)


def density(y: float) -> float:
    return sum(w * stats.norm.pdf(y, m, s) for w, m, s in zip(SHARES, CENTERS, SCALES, strict=True))


def test_excess_is_the_difference_of_two_divergences() -> None:
    def cross_entropy(loc: float, scale: float) -> float:
        return integrate.quad(lambda y: -density(y) * stats.norm.logpdf(y, loc, scale), -12, 14, limit=200)[0]

    found = excess_kl(np.array([0.3]), np.array([2.0]))[0]
    assert found == pytest.approx(cross_entropy(0.3, 2.0) - cross_entropy(MEAN, SD), abs=1e-8)
    score = integrate.quad(lambda y: density(y) * (1 - ((y - MEAN) / SD) ** 2) ** 2, -12, 14, limit=200)[0]
    assert predicted_excess(1) == pytest.approx(0.5 * (1 + score / 2), abs=1e-8)


def test_a_wrong_model_goes_to_the_closest_member() -> None:
    loc, scale = fitted(400, 2000, seed=3)
    random = np.random.default_rng((3, 2000))
    which = (random.random((400, 2000)) < SHARES[1]).astype(int)
    y = np.array(CENTERS)[which] + np.array(SCALES)[which] * random.normal(size=(400, 2000))
    assert loc == pytest.approx(y.mean(1), abs=1e-7)
    assert scale == pytest.approx(y.std(1), abs=1e-7)
    excess = excess_kl(loc, scale)
    assert abs(excess.mean() - predicted_excess(2000)) < 4 * excess.std() / 20
    assert abs(loc.mean() - MEAN) < 4 * SD / np.sqrt(400 * 2000)
