"""The benchmark of searches measures what it says."""

import importlib.util
import sys
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_search", ROOT / "scripts" / "bench" / "search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_search"] = module
    spec.loader.exec_module(module)
    return module


def test_what_was_reached_in_some_time(bench: ModuleType) -> None:
    done = bench.Done(10.0, 20.0, [(0.5, 3.0, 4.0), (0.2, 5.0, 1.0), (1.0, 2.0, 9.0)])
    assert done.best == (1.0, 2.0, 9.0)
    assert [done.least(cpu) for cpu in (1, 2, 5, 10)] == [float("inf"), 5.0, 3.0, 2.0]
    assert [done.seconds(nll) for nll in (6.0, 3.0, 1.0)] == [2.0, 5.0, float("inf")]


def test_values_of_a_grid_lie_in_the_middle(bench: ModuleType) -> None:
    assert bench._spaced((0.0, 1.0), False, num=2) == [0.25, 0.75]
    assert bench._spaced((1e-4, 1.0), True, num=2) == [1e-3, 1e-1]


@pytest.mark.slow
def test_each_way_gives_as_many_results_as_it_is_asked_for(bench: ModuleType) -> None:
    together = bench.search(bench.SEARCHES["random, halving, one group"], 3, 3)
    for done in (together, bench.grid(2, 1), bench.plain(2, 1)):
        assert done.cpu > 0
        assert all(0 < share <= 1 for share, _, _ in done.reached)
        assert all(0 < nll < 3 for _, nll, _ in done.reached)
    assert len(together.reached) == 3
