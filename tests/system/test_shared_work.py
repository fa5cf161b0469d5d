"""Work that jobs share is done once, warns each time, and is never that of other settings."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlefw.configuration.read import read_settings, settings_of
from mlefw.run import prepare
from mlefw.system import shared_work
from mlefw.system.warning import warn

PARTS = {"data": {"_target_": "mlefw.data.bundled.Bundled", "name": "iris"}, "seed": 1}


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    shared_work.clear()
    yield
    shared_work.clear()


def test_it_is_done_once_for_equal_parts_while_remembering() -> None:
    done: list[int] = []

    def work() -> int:
        done.append(len(done))
        warn("take care")
        return len(done)

    with pytest.warns(UserWarning, match="take care"):
        assert shared_work.compute_once("work", PARTS, ("data",), work) == 1
    with shared_work.shared_with_forks():
        assert shared_work.compute_once("work", PARTS, ("data",), work) == 2
    for config in (PARTS, {**PARTS, "seed": 2}):
        with pytest.warns(UserWarning, match="take care"):
            assert shared_work.compute_once("work", config, ("data",), work) == 2
    other = {"data": {**PARTS["data"], "name": "wine"}}  # type: ignore[dict-item]
    with pytest.warns(UserWarning, match="take care"):
        assert shared_work.compute_once("work", other, ("data",), work) == 3


def test_parts_of_others_are_not_remembered() -> None:
    with shared_work.shared_with_forks():
        foreign = {"data": {"_target_": "elsewhere.Source"}}
        first, second = (shared_work.compute_once("work", foreign, ("data",), object) for _ in range(2))
        assert first is not second


def test_a_run_with_shared_work_has_the_same_exact_estimate(tmp_path: Path) -> None:
    plain = read_settings("train", ["prior=l2", "++prior.scale=0.5"], (), ())
    config = settings_of({**plain, "run_dir": str(tmp_path / "r")})
    alone = prepare.estimate(config, prepare.prepare(config, None))
    with shared_work.shared_with_forks():
        prepare.share(config.replaced(seed=9))
    prepared = prepare.prepare(config.replaced(seed=7), None)
    shared = prepare.estimate(config, prepared)
    again = prepare.estimate(config, prepared)
    assert shared is again
    assert shared is not alone
    assert alone.map is not None and shared.map is not None
    assert shared.map.theta.equal(alone.map.theta)
    other = config.replaced(prior={**config.prior, "scale": 2.0})
    estimated = prepare.estimate(other, prepare.prepare(other, None)).map
    assert estimated is not None and not estimated.theta.equal(alone.map.theta)


def test_large_or_foreign_data_stay_with_the_jobs(tmp_path: Path) -> None:
    config = read_settings("train", ["data=synthetic"], (), ())
    assert shared_work.is_shareable(config)
    assert not shared_work.is_shareable({**config, "data": {**config["data"], "num_rows": 10**7}})
    assert not shared_work.is_shareable({**config, "model": {"_target_": "elsewhere.Net"}})
    assert not shared_work.is_shareable({**config, "data": {**config["data"], "path": str(tmp_path)}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shared_work.is_shareable({**config, "data": {**config["data"], "path": __file__}})
