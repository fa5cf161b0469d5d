"""SGD as approximate maximum likelihood, at the ranges of a simulation over 200 seeds made without this code."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch

from mlefw.errors import UsageError
from mlefw.experiment.sgd_to_mle import SgdToMle, one, slope_errors
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.simulation import descents, sgd_theory
from mlefw.simulation.descents import Settings
from mlefw.simulation.replicates import Replicates, descend, fit


def test_the_race_ends_where_statsmodels_and_the_theory_say() -> None:
    ran = descents.run(Settings(), NoPrior())
    random = np.random.default_rng(0)
    x = random.normal(size=500)
    y = random.random(500) < 1 / (1 + np.exp(-0.5 - 1.5 * x))
    reference = sm.Logit(y, sm.add_constant(x)).fit(disp=0)
    assert ran.exact.theta.numpy()[::-1] == pytest.approx(reference.params, abs=1e-8)
    assert ran.exact.objective == pytest.approx(-reference.llf / 500, abs=1e-12)
    assert abs(ran.full.theta[-1] - ran.exact.theta.numpy()).max() < 1e-4
    assert abs(ran.stochastic.theta[-1, 0] - float(ran.exact.theta[0])) < 0.33
    assert len(ran.full.value) == len(ran.stochastic.value) == 201
    assert ran.full.value[0] == pytest.approx(np.log(2))
    assert ran.full.value[-1] <= ran.stochastic.value[-1]


def test_over_200_data_sets() -> None:
    errors, _ = slope_errors(Settings(), 200)
    assert np.abs(errors["GD − MLE"]).max() < 1e-4
    sgd = errors["SGD − MLE"]
    assert 0.071 < np.abs(sgd).mean() < 0.098
    assert 0.09 < np.sqrt(np.square(sgd).mean()) < 0.125
    assert (np.abs(sgd) < 0.30).mean() >= 0.98
    assert np.median(np.abs(errors["MLE − truth"])) == pytest.approx(0.104, abs=0.001)


def test_noise_at_rest_is_that_of_the_lyapunov_equation() -> None:
    ran = descents.run(Settings(lr=0.3, num_steps=1), NoPrior())
    data, lr = one(ran), 0.3
    here = sgd_theory.curvature(data, ran.exact.theta)
    seen = sgd_theory.rest(data, ran.exact.theta, lr, 200, seed=1, num_steps=300, settle=150)
    covariance = here.stationary(lr, 200)
    assert covariance is not None
    variance, error = seen.variance()
    # At this rate and batch size the neglected third derivatives are far below the sampling error.
    assert np.abs(variance - np.diag(covariance)).max() < 4 * error.max()
    assert abs(seen.excess[0] - here.excess(covariance)) < 4 * seen.excess[1]
    assert here.small_rate_excess(lr, 200) == pytest.approx(here.excess(covariance), rel=0.1)


def test_the_stationary_covariance_solves_its_equation_and_ends_at_the_largest_rate() -> None:
    ran = descents.run(Settings(num_steps=1), NoPrior())
    here = sgd_theory.curvature(one(ran), ran.exact.theta)
    covariance = here.stationary(2.0, 10)
    assert covariance is not None
    step = np.eye(2) - 2.0 * here.hessian
    assert step @ covariance @ step + 4 * here.noise / 10 == pytest.approx(covariance, abs=1e-14)
    assert here.stationary(1.01 * here.largest_rate, 10) is None


def test_gradient_noise_scale_at_zero() -> None:
    data = one(descents.run(Settings(num_steps=1), NoPrior()))
    zero = torch.zeros(2, dtype=torch.float64)
    assert sgd_theory.curvature(data, zero).noise_scale == pytest.approx(5.159, abs=5e-4)
    estimate = sgd_theory.estimated_noise_scale(data, zero, (50, 500), seed=0)
    assert estimate == pytest.approx(5.159, rel=0.15)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "poisson"])
def test_batched_fits_and_descents_are_those_of_single_problems(kind: descents.Kind) -> None:
    races = [descents.run(Settings(kind, 80, num_steps=7, lr=0.2, seed=seed), NoPrior()) for seed in range(3)]
    rows = [ran.exact.problem.rows for ran in races]
    data = Replicates(descents.make_head(kind), torch.stack([r.x for r in rows]), torch.stack([r.y for r in rows]))
    fits = fit(data)
    assert bool(fits.converged.all())
    path = descend(data, data.origin(), 0.2, 7)
    for k, ran in enumerate(races):
        assert fits.theta[k].numpy() == pytest.approx(ran.exact.theta.numpy(), abs=1e-7)
        assert path[:, k].numpy() == pytest.approx(ran.full.theta, abs=1e-12)


def test_under_a_prior_the_descent_goes_to_the_map() -> None:
    for prior in (L2Prior(0.1), L1Prior(0.05), L1Prior(0.001)):
        ran = descents.run(Settings(num_steps=400), prior)
        assert ran.full.theta[-1] == pytest.approx(ran.exact.theta.numpy(), abs=1e-6)
    assert ran.full.theta[-1, 0] == 0.0


def test_a_rate_that_is_too_large_is_named_and_not_drawn_to_infinity() -> None:
    findings = SgdToMle(head="poisson", lr=5.0, iterations=50, replicates=0).run()
    assert "diverges" in findings.verdict
    assert findings.values["largest_rate"] is not None


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="batch_size"):
        SgdToMle(batch_size=0)
    with pytest.raises(UsageError, match=r"experiment\.lr"):
        SgdToMle(lr=-1.0)
