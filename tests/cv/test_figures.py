"""Means and standard errors over folds, against statsmodels and by hand."""

import numpy as np
import pytest
import statsmodels.api as sm

from mlefw.cv.figures import clustered, corrected, figures, naive, newey_west

RNG = np.random.default_rng(2)
VALUES = RNG.gamma(2.0, size=90)
ONES = np.ones(90)
GROUPS = RNG.integers(0, 11, 90)


def test_naive_error_is_the_sd_over_root_n_with_weights_as_frequencies() -> None:
    assert naive(VALUES - VALUES.mean(), ONES) == pytest.approx(VALUES.std(ddof=1) / np.sqrt(90), rel=1e-12)
    counts = RNG.integers(1, 4, 90)
    long = np.repeat(VALUES, counts)
    expected = long.std(ddof=1) / np.sqrt(len(long))
    assert naive(VALUES - long.mean(), counts.astype(float)) == pytest.approx(expected, rel=1e-12)


def test_corrected_error_by_hand() -> None:
    means = np.array([1.0, 2.0, 4.0, 5.0])
    assert corrected(means, 1 / 3) == pytest.approx(np.sqrt((1 / 4 + 1 / 3) * 10 / 3), rel=1e-12)
    assert np.isnan(corrected(means[:1], 0.1))


def test_clustered_error_is_that_of_an_intercept_with_clustered_covariance() -> None:
    fit = sm.OLS(VALUES, ONES).fit(cov_type="cluster", cov_kwds={"groups": GROUPS, "use_correction": False})
    expected = fit.bse[0] * np.sqrt(11 / 10)
    assert clustered(VALUES - VALUES.mean(), ONES, GROUPS) == pytest.approx(expected, rel=1e-10)


def test_newey_west_error_is_that_of_an_intercept_with_hac_covariance() -> None:
    lags = int(4 * (90 / 100) ** (2 / 9))
    fit = sm.OLS(VALUES, ONES).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
    assert newey_west(VALUES - VALUES.mean(), ONES) == pytest.approx(fit.bse[0], rel=1e-10)


def test_repeats_of_a_row_are_no_more_rows_and_the_mean_is_over_rows() -> None:
    row, fold = np.tile(np.arange(30), 3), np.repeat(np.arange(9), 10)
    found = figures(VALUES, ONES, row, fold, 0.5)
    assert found["nats"] == pytest.approx(VALUES.mean(), rel=1e-12)
    of_row = VALUES.reshape(3, 30).mean(0)
    assert found["naive_se"] == pytest.approx(of_row.std(ddof=1) / np.sqrt(30), rel=1e-12)
    means = VALUES.reshape(9, 10).mean(1)
    assert found["corrected_se"] == pytest.approx(np.sqrt((1 / 9 + 0.5) * means.var(ddof=1)), rel=1e-12)


def test_rows_of_several_sizes_of_fold_count_alike() -> None:
    fold = np.repeat([0, 1], [80, 10])
    found = figures(VALUES, ONES, np.arange(90), fold, 0.1, group=GROUPS, moment=np.arange(90)[::-1])
    assert found["nats"] == pytest.approx(VALUES.mean(), rel=1e-12)
    assert found["clustered_se"] == pytest.approx(clustered(VALUES - VALUES.mean(), ONES, GROUPS), rel=1e-12)
    assert found["hac_se"] == pytest.approx(newey_west((VALUES - VALUES.mean())[::-1], ONES), rel=1e-12)
