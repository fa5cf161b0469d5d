"""Conformance checks of an average of the weights."""

from collections.abc import Iterator
from dataclasses import dataclass

from mlefw.average.base import Average
from mlefw.testing.conformance import Check, hold

_STEPS = (1, 2, 7, 100)
"""Numbers of steps in an epoch to try."""
_EPOCHS = (0, 1, 5, 400)
"""Numbers of epochs before the step to try."""


@dataclass(frozen=True)
class AverageCase:
    """An average of the weights."""

    average: Average


def check_average(average: Average) -> None:
    """Check an average of the weights against all rules of its kind.

    Args:
        average: the average.

    Raises:
        ConformanceError: the average breaks rules; the message names them, and what was found and expected.
    """
    hold(average, AverageCase(average), CHECKS)


def shares_are_above_zero_and_at_most_one(case: AverageCase) -> Iterator[str]:
    """The share of the newest weights in the average is above 0 and at most 1."""
    for steps in _STEPS:
        for epoch in _EPOCHS:
            progress, length = epoch + 1 / steps, 1 / steps
            share = case.average.share(progress, length)
            if not 0 < share <= 1:
                yield f"at progress {progress:g} with steps of {length:g} epochs the share is {share!r}"


def first_step_replaces_initial_weights(case: AverageCase) -> Iterator[str]:
    """After the first step the average equals the weights: the initial weights have no share in it."""
    for steps in _STEPS:
        share = case.average.share(1 / steps, 1 / steps)
        if abs(share - 1) > 1e-12:
            yield f"after the first of {steps} steps of an epoch the share is {share!r}, expected 1"


def share_depends_on_its_arguments_alone(case: AverageCase) -> Iterator[str]:
    """The share depends on the arguments only, not on earlier calls, because a resumed run calls from the middle on."""
    places = [(k / 10, 1 / 10) for k in range(1, 30)]
    forth = [case.average.share(*place) for place in places]
    back = [case.average.share(*place) for place in reversed(places)][::-1]
    if forth != back:
        yield "shares depend on the order in which they are asked for"


CHECKS: tuple[Check[AverageCase], ...] = (
    shares_are_above_zero_and_at_most_one,
    first_step_replaces_initial_weights,
    share_depends_on_its_arguments_alone,
)
