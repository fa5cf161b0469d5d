"""The optimism of the least of several means, against what new rows would show."""

import numpy as np
import pytest

from mlefw.score.selection import optimism


@pytest.mark.parametrize("gap", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["rows", "units"])
def test_it_is_what_new_rows_would_show(gap: float, kind: str) -> None:
    random, found, true = np.random.default_rng(0), [], []
    for seed in range(40):
        mean = np.linspace(0, gap, 10)
        unit = np.repeat(np.arange(150), 3) if kind == "units" else None
        shared = np.repeat(random.normal(size=(150, 10)), 3 if kind == "units" else 1, axis=0)
        nll = mean + shared
        best = nll.mean(0).argmin()
        true.append(mean[best] - nll[:, best].mean())
        found.append(optimism(nll.T, np.ones(len(nll)), unit, seed))
    assert np.mean(found) == pytest.approx(np.mean(true), abs=4 * np.std(true) / 40**0.5)
    assert np.mean(found) > 0.03


def test_weights_are_those_of_repeated_units_and_zeros_are_no_rows() -> None:
    nll, unit = np.random.default_rng(1).normal(size=(4, 60)), np.arange(60)
    weight = np.tile([2.0, 1.0, 0.0], 20)
    repeated = np.repeat(np.arange(60), weight.astype(int))
    known = optimism(nll[:, repeated], np.ones(len(repeated)), unit[repeated])
    assert optimism(nll, weight) == pytest.approx(known, rel=1e-12)


def test_copies_and_single_candidates_have_none() -> None:
    column = np.random.default_rng(2).normal(size=50)
    assert optimism([column], np.ones(50)) == 0
    assert optimism([column] * 5, np.ones(50)) == pytest.approx(optimism([column] * 2, np.ones(50)))
    assert np.isnan(optimism([column[:1]] * 2, np.ones(1)))


def test_many_rows_are_gathered_in_bags() -> None:
    nll = np.random.default_rng(3).normal(size=(5, 20_000))
    # The expected maximum of five standard normal means.
    assert optimism(nll, np.ones(20_000)) == pytest.approx(1.16296 / 20_000**0.5, rel=0.6)
