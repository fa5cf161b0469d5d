"""Asynchronous successive halving (Li et al., 2020): which trials go on beyond a rung.

A rung is a number of epochs. Of the trials that have reached it, one in three goes on to the next; the others wait
there with a checkpoint, and are promoted when enough trials that are worse have come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REDUCTION = 3
"""Of so many trials at a rung one goes on."""

_MOST = 3
"""Most rungs below the end of training."""


def rungs(max_epochs: int) -> list[int]:
    """The epochs after which trials are judged, before the end of a training; none where it has fewer than 3."""
    found = {max_epochs // REDUCTION**power for power in range(1, _MOST + 1)}
    return sorted(epochs for epochs in found if epochs >= 1)


@dataclass(frozen=True)
class Standing:
    """Where a trial stands.

    Attributes:
        values: its least validation NLL at each rung that it has reached, in nats, by the epochs of the rung.
        is_waiting: whether it waits at the last of these.
    """

    values: Mapping[int, float]
    is_waiting: bool


def goes_on(value: float, others: Sequence[float]) -> bool:
    """Whether a trial with this value is among the best third of all at its rung, of which `others` are the others."""
    better = sum(other <= value for other in others)
    return better < (len(others) + 1) // REDUCTION


def promotable(trials: Mapping[int, Standing], is_last: bool) -> int | None:
    """The number of a waiting trial that is to go on, from the highest rung at which there is one; None without any.

    Args:
        trials: all trials by number, the finished ones too.
        is_last: whether no trial runs and none will come: then the best of the highest rung goes on to the end, unless
            a trial has got there.
    """
    reached = {epochs for trial in trials.values() for epochs in trial.values}
    for epochs in sorted(reached, reverse=True):
        at = {number: trial.values[epochs] for number, trial in trials.items() if epochs in trial.values}
        for number in sorted(at, key=lambda one: (at[one], one)):
            others = [value for other, value in at.items() if other != number]
            waits = trials[number].is_waiting and epochs == max(trials[number].values)
            if waits and goes_on(at[number], others):
                return number
    waiting = [number for number, trial in trials.items() if trial.is_waiting]
    if not (is_last and waiting) or any(not trial.is_waiting for trial in trials.values()):
        return None
    highest = max(max(trials[number].values) for number in waiting)
    return min(
        (number for number in waiting if highest in trials[number].values), key=lambda one: trials[one].values[highest]
    )
