"""Base class of heads for a count out of a known number of trials."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.parameter import ParameterSource
from mlefw.distribution.trials import GivenTrials, Successes
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start

_MOST = 2**53
"""Largest whole number below which every one is a number in 64 bit."""


class TrialsHead(FactorizedHead):
    """A count of successes out of a number of trials: of the column data.trials, or one number for all rows.

    A concrete head writes `build` by means of `counted`. With a column of trials y is (*batch, 2): count and trials.
    """

    takes_trials = True
    outside: ClassVar = "a count of successes may not exceed its number of trials"

    def __init__(self, trials: int | None, start: Start, **sources: ParameterSource) -> None:
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or not 1 <= trials < _MOST):
            raise UsageError(f"head.trials={trials!r}: expected a whole number from 1 on, or null (data.trials=column)")
        super().__init__(start=start, scale_floor=0.0, **sources)  # type: ignore[arg-type]
        self.trials = trials
        self.event_shape = torch.Size([] if trials is not None else [2])
        self.support = Successes(trials)

    def counted(self, given: Callable[[Tensor], Distribution], like: Tensor) -> Distribution:
        """The distribution of the count; `given` makes it from numbers of trials, shaped like the tensor `like`."""
        if self.trials is None:
            return GivenTrials(given, like.shape, like.device)
        return given(torch.full_like(like, self.trials))

    def parted(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The counts and numbers of trials of targets, each (*batch,)."""
        count, trials = (y, torch.full_like(y, self.trials)) if self.trials is not None else y.unbind(-1)
        return count, trials

    def points(self, y: Tensor) -> Tensor:
        """The share of successes, (*batch,)."""
        count, trials = self.parted(y)
        return count / trials

    def set_units(self, mean: float, spread: float) -> None:
        """Do nothing: log-odds have no unit."""

    def rises(self, y: Tensor) -> Rises:
        """The log-odds of a row without successes may go to minus infinity, and of one without failures to infinity."""
        count, trials = self.parted(y)
        return Rises(count > 0, count < trials)
