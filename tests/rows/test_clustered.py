"""The standard error over units is that of regression with clusters, and its intervals cover."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch

from mlefw.rows.clustered import clustered_mean, sequence_units


def panel(seed: int, num_units: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, weights and units of observations that depend on each other within a unit."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(num_units), rng.integers(1, 30, num_units))
    value = rng.normal(3, 1, num_units)[unit] + rng.normal(0, 1, len(unit))
    return value, rng.choice([0.5, 1.0, 2.0], len(unit)), unit


@pytest.mark.parametrize("seed", range(4))
def test_it_is_weighted_least_squares_with_clusters(seed: int) -> None:
    value, weight, unit = panel(seed)
    fit = sm.WLS(value, np.ones(len(value)), weights=weight).fit(
        cov_type="cluster", cov_kwds={"groups": unit, "use_correction": False}
    )
    found = clustered_mean(*map(torch.from_numpy, (value * weight, weight, unit)))
    assert found.num_units == 40
    np.testing.assert_allclose(found.mean, fit.params[0], rtol=1e-12)
    # statsmodels multiplies by (N − 1)/(N − 1) for one coefficient beside G/(G − 1).
    np.testing.assert_allclose(found.error, fit.bse[0] * np.sqrt(40 / 39), rtol=1e-12)
    corrected = sm.WLS(value, np.ones(len(value)), weights=weight).fit(cov_type="cluster", cov_kwds={"groups": unit})
    np.testing.assert_allclose(found.error, corrected.bse[0], rtol=1e-12)


def test_sums_of_rows_say_as_much_as_observations() -> None:
    value, weight, unit = panel(9)
    whole = clustered_mean(*map(torch.from_numpy, (value * weight, weight, unit)))
    sums = [torch.from_numpy(np.bincount(unit, part)) for part in (value * weight, weight)]
    np.testing.assert_allclose(clustered_mean(*sums), whole, rtol=1e-13)


def test_one_observation_a_row_gives_the_usual_error() -> None:
    value = np.random.default_rng(1).normal(size=200)
    found = clustered_mean(torch.from_numpy(value), torch.ones(200))
    np.testing.assert_allclose(found.error, value.std(ddof=1) / np.sqrt(200), rtol=1e-13)


def test_rows_without_weight_are_no_units() -> None:
    total, weight = torch.tensor([1.0, 2.0, 4.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert clustered_mean(total, weight) == clustered_mean(total[:3], weight[:3])
    unit = torch.tensor([0, 5, 5, 7])
    assert clustered_mean(total, weight, unit).num_units == 2


def test_fewer_than_two_units_have_no_error() -> None:
    one = clustered_mean(torch.tensor([1.0, 2.0]), torch.ones(2), torch.zeros(2, dtype=torch.long))
    assert one.mean == 1.5
    assert np.isnan(one.error)
    none = clustered_mean(torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    assert np.isnan(none.mean)
    assert none.num_units == 0


def test_intervals_over_independent_rows_cover() -> None:
    """500 panels of 60 rows with an AR(1) series each: about 95 % of intervals cover, and far fewer if rows are cut."""
    rng = np.random.default_rng(0)
    hits = {"rows": 0, "observations": 0}
    for _ in range(500):
        noise = rng.normal(size=(60, 32))
        for t in range(1, 32):
            noise[:, t] = 0.9 * noise[:, t - 1] + np.sqrt(1 - 0.81) * noise[:, t]
        series = torch.from_numpy(noise)
        for name, sums in (("rows", series.sum(1)), ("observations", series.reshape(-1))):
            weight = torch.full((len(sums),), series.numel() / len(sums))
            found = clustered_mean(sums, weight)
            hits[name] += abs(found.mean) < 1.96 * found.error
    assert 0.92 <= hits["rows"] / 500 <= 0.98
    assert hits["observations"] / 500 < 0.75


@pytest.mark.parametrize("num_rows", [1, 2, 3, 50, 1743, 2000])
def test_blocks_of_consecutive_windows(num_rows: int) -> None:
    units = sequence_units(torch.zeros(num_rows, dtype=torch.long))
    count = int(np.sqrt(num_rows))
    edges = [num_rows * g // count for g in range(count + 1)]
    assert units.of_row.tolist() == [g for g in range(count) for _ in range(edges[g], edges[g + 1])]
    assert units.name == ("1 block" if count == 1 else f"{count} blocks")


def test_many_documents_are_units_themselves() -> None:
    document = torch.arange(30).repeat_interleave(3) * 100
    assert sequence_units(document).name == "30 documents"
    assert sequence_units(document).of_row.tolist() == [k for k in range(30) for _ in range(3)]
    assert sequence_units(document[:87]).name == "9 blocks"
