"""What mlefw counts on in an average of the weights."""

from collections.abc import Iterator
from dataclasses import dataclass

from mlefw.average.base import Average
from mlefw.testing.conformance import Check, hold

_STEPS = (1, 2, 7, 100)
"""Of an epoch."""
_EPOCHS = (0, 1, 5, 400)


@dataclass(frozen=True)
class AverageCase:
    """An average to be tried."""

    average: Average


def check_average(average: Average) -> None:
    """Hold an average of the weights to everything that mlefw counts on.

    Args:
        average: as it is built.

    Raises:
        ConformanceError: naming the rules that are broken, where, and what was found in place of what.
    """
    hold(average, AverageCase(average), CHECKS)


def shares_are_shares(case: AverageCase) -> Iterator[str]:
    """The share of the newest weights is above 0 and at most 1."""
    for steps in _STEPS:
        for epoch in _EPOCHS:
            progress, length = epoch + 1 / steps, 1 / steps
            share = case.average.share(progress, length)
            if not 0 < share <= 1:
                yield f"at progress {progress:g} with steps of {length:g} epochs the share is {share!r}"


def nothing_is_left_of_the_time_before(case: AverageCase) -> Iterator[str]:
    """After the first step the average is the weights."""
    for steps in _STEPS:
        share = case.average.share(1 / steps, 1 / steps)
        if abs(share - 1) > 1e-12:
            yield f"after the first of {steps} steps of an epoch the share is {share!r}, expected 1"


def arguments_alone_decide(case: AverageCase) -> Iterator[str]:
    """The share does not depend on what was asked before: a resumed run asks from the middle on."""
    places = [(k / 10, 1 / 10) for k in range(1, 30)]
    forth = [case.average.share(*place) for place in places]
    back = [case.average.share(*place) for place in reversed(places)][::-1]
    if forth != back:
        yield "shares depend on the order in which they are asked for"


CHECKS: tuple[Check[AverageCase], ...] = (
    shares_are_shares,
    nothing_is_left_of_the_time_before,
    arguments_alone_decide,
)
