"""Lines with outliers and with growing noise, beside statsmodels and the truth."""

import numpy as np
import pytest
import statsmodels.api as sm

from mlefw.experiment.heteroscedastic import REGIONS, Heteroscedastic
from mlefw.experiment.robustness import Robustness


def test_heavy_tails_leave_outliers_alone() -> None:
    experiment = Robustness()
    values = experiment.run().values
    train, _ = experiment.rows()
    x, y = sm.add_constant(train.x[:, 0].numpy()), train.y.numpy()
    least_squares = sm.OLS(y, x).fit()
    median = sm.QuantReg(y, x).fit(q=0.5, p_tol=1e-12)
    assert [values["gaussian_intercept"], values["gaussian_slope"]] == pytest.approx(least_squares.params, abs=1e-9)
    assert [values["laplace_intercept"], values["laplace_slope"]] == pytest.approx(median.params, abs=1e-4)
    assert values["gaussian_train_nll"] == pytest.approx(-least_squares.llf / 200, abs=1e-12)
    # Standard error of the slope without outliers: 0.5 / √(200 · 4/3) = 0.031.
    assert values["gaussian_slope"] - 2 > 0.5
    assert abs(values["student_t_slope"] - 2) < 4 * 0.031 * 1.2
    assert values["student_t_clean_nll"] < values["huber_clean_nll"] < values["gaussian_clean_nll"]


def test_without_outliers_all_heads_agree() -> None:
    values = Robustness(share=0.0).run().values
    for name in ("gaussian", "laplace", "huber", "student_t"):
        assert abs(values[f"{name}_slope"] - 2) < 4 * 0.031 * 1.3
        assert values[f"{name}_coverage"] == pytest.approx(0.9, abs=0.06)


def test_growing_noise_is_learnt_and_covered_everywhere() -> None:
    values = Heteroscedastic().run().values
    for name, truth in {"slope": 2.0, "intercept": 1.0, "growth": 1.0, "log_scale": -1.0}.items():
        assert abs(values[name] - truth) < 4 * values[f"{name}_se"]
    # Information of (γ0, γ1) is 2 Z'Z, Z uniform with variance 3/4 (n = 500).
    assert values["growth_se"] == pytest.approx(1 / np.sqrt(2 * 500 * 0.75), rel=0.1)
    assert abs(values["shared sigma_x < −0.5"] - 0.9) > 0.05
    for region in REGIONS:
        # log sigma is uncertain by 0.049 at |x| = 1, and coverage moves by 2 · 1.645 φ(1.645) = 0.339 a unit of it.
        assert values[f"sigma(x)_{region}"] == pytest.approx(0.9, abs=4 * 0.339 * 0.049)
    assert values["sigma(x)_nll"] < values["shared sigma_nll"] - 0.1
