"""Every consumer of randomness has its own stream: what one of them draws changes nothing for the others."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import QUIET, assert_same, assert_same_run, train

from mlefw.baseline.linear import LinearBaseline
from mlefw.callback.board import WriteBoard
from mlefw.callback.figures import LogFigures
from mlefw.command import train as train_command
from mlefw.data.base import Source
from mlefw.report import pictures
from mlefw.run import build, conclude, exhibit
from mlefw.system import random_state, shared_work
from mlefw.system.random_state import RandomStream
from mlefw.trained import load
from mlefw.training.evaluator import Evaluator

RUN = ("model.hidden=[5]", "model.dropout=0.3", "trainer.max_epochs=3", "batch.size=50", QUIET[-1])

CONSUMERS = {
    "reading": (Source, "parts"),
    "head and metrics": (build, "build_metrics"),
    "the exact side": (LinearBaseline, "solve"),
    "yardstick": (train_command, "Yardstick"),
    "evaluation": (Evaluator, "add"),
    "log": (LogFigures, "_log"),
    "board": (WriteBoard, "on_validation_end"),
    "pictures": (pictures, "calibration"),
    "the last figures": (conclude, "evaluated"),
    "report": (exhibit, "report"),
}
"""What may draw at random beside the initial weights, the order of rows, and dropout."""


def draws() -> list[float]:
    normal = np.random.standard_normal()
    return [float(torch.rand(())), float(normal), float(np.random.random()), random.random(), random.gauss()]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = random_state.capture()
    yield
    random_state.restore(before)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As a job of a sweep has it: sums over rows are rounded alike then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "r"
    assert train(*RUN, "report=false", "plots=false", f"run_dir={folder}") == 0
    return folder


def test_a_stream_goes_on_where_it_was_and_moves_no_other(tmp_path: Path) -> None:
    random_state.restore(RandomStream(5, "a caller").state)
    expected = draws()
    random_state.restore(RandomStream(5, "a caller").state)
    one, other = RandomStream(0, "one"), RandomStream(0, "other")
    with one:
        first = draws()
        with other:
            assert draws() != first
        torch.save(one.state, tmp_path / "state")
        second = draws()
    assert draws() == expected
    again = RandomStream(0, "one")
    with again:
        assert draws() == first
    again.state = torch.load(tmp_path / "state", weights_only=True)
    with again:
        assert draws() == second
    with one, pytest.raises(ZeroDivisionError), other:
        raise ZeroDivisionError
    assert draws() != expected


def test_no_two_consumers_share_a_stream() -> None:
    names = ["initial weights", "steps", *(f"order of rows in epoch {epoch}" for epoch in range(100))]
    numbers = [random_state.stream_seed(seed, name) for seed, name in itertools.product(range(50), names)]
    assert len({number % 2**32 for number in numbers}) == len(numbers), "torch takes 32 bits on the CPU"


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_one_draws_the_others_do_not_miss(
    consumer: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name = CONSUMERS[consumer]
    original: Callable[..., Any] = getattr(place, name)
    met = []

    def thirsty(*args: Any, **more: Any) -> Any:
        met.append(draws())
        return original(*args, **more)

    monkeypatch.setattr(place, name, thirsty)
    before = random_state.capture()
    shown = str(consumer in ("pictures", "report")).lower()
    assert train(*RUN, f"report={shown}", f"plots={shown}", "run_dir=r") == 0
    assert_same(before, random_state.capture())
    assert met
    assert_same_run(whole, tmp_path / "r")


def test_a_run_is_the_same_in_whatever_company(whole: Path, tmp_path: Path) -> None:
    shared_work.clear()
    # Steps of several jobs at once round otherwise: tests/sweep/population compares those.
    alone = "hydra.launcher.population=false"
    for number, swept in enumerate((("seed=2,1,0", alone), ("baseline=none,linear", alone))):
        root = tmp_path / f"{number}"
        assert train("-m", *RUN, "report=false", "plots=false", *swept, f"run_dir={root}") == 0
        last = max(path for path in root.iterdir() if path.is_dir())
        assert_same(
            *(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["resume"] for run in (whole, last))
        )
        assert_same_run(whole, last)


def test_a_model_that_is_loaded_and_asked_moves_no_generator(whole: Path) -> None:
    before = random_state.capture()
    model = load(whole)
    frame = {name: np.linspace(0, 1, 4) for name in model.features}
    model.predict(frame, uncertainty="mc_dropout")
    model.distribution(frame)
    assert_same(before, random_state.capture())
