"""How long trainings wait, by the number of their steps."""

import pytest

from mlefw.training.waiting import epochs_to_wait


@pytest.mark.parametrize(("num_steps", "expected"), [(1, 100), (13, 96), (25, 50), (100, 50), (250, 20), (10_000, 5)])
def test_waiting_follows_the_steps_of_an_epoch(num_steps: int, expected: int) -> None:
    assert epochs_to_wait("auto", 50, num_steps) == expected


@pytest.mark.parametrize("asked", [None, 0, 3, 500])
def test_what_was_asked_for_is_what_is_waited(asked: int | None) -> None:
    assert epochs_to_wait(asked, 50, 1000) == asked
