"""Counts out of a number of trials that is known for each row."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.types import _size

_USUAL = 10.0
"""Number of trials of draws and moments where those of a row are not given."""


class Successes(Constraint):
    """Whole numbers from `lower` to the number of trials: y alone, of a given number; or pairs (y, trials)."""

    is_discrete = True

    def __init__(self, trials: int | None, lower: int = 0, upper: int | None = None) -> None:
        self.trials, self.lower_bound = trials, lower
        self.event_dim = 0 if trials is not None else 1
        if trials is not None:
            self.upper_bound = trials if upper is None else min(upper, trials)
        self._most = torch.inf if upper is None else upper

    def check(self, value: Tensor) -> Tensor:
        """Whether each count may occur, (*batch,)."""
        y, trials = (value, value.new_full((), self.trials)) if self.trials is not None else value.unbind(-1)
        whole = (y == y.round()) & (trials == trials.round()) & (trials >= 1)
        return whole & (y >= self.lower_bound) & (y <= trials) & (y <= self._most)

    def __repr__(self) -> str:
        """The words that error messages use."""
        most = "the number of trials" if self.trials is None else f"{self.trials}"
        return f"whole numbers from {self.lower_bound} to {most}"


class GivenTrials(Distribution):
    """The distribution of a count out of trials, whose number belongs to what is observed of a row.

    Its log-probability is that of the count given the number of trials. `given` is the distribution of the count once
    the number is known; mean, variance and draws here are those of ten trials.

    Shapes: y (*batch, 2), the count and the number of trials.

    Args:
        given: maps numbers of trials, (*batch,), to the distribution of the count, of batch shape (*batch,).
        batch_shape: the shape of a batch.
        device: where the parameters are, by default the CPU.
    """

    arg_constraints = {}  # noqa: RUF012 - torch asks for it, and types it as one of an instance

    def __init__(
        self, given: Callable[[Tensor], Distribution], batch_shape: torch.Size, device: torch.device | None = None
    ) -> None:
        self.given, self.device = given, device
        super().__init__(batch_shape, torch.Size([2]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        count, trials = value.unbind(-1)
        return self.given(trials).log_prob(count)

    @property
    def mean(self) -> Tensor:
        """The expected count out of ten trials, (*batch,)."""
        return self.usual.mean

    @property
    def variance(self) -> Tensor:
        """The variance of the count out of ten trials, (*batch,)."""
        return self.usual.variance

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws out of ten trials, (*sample_shape, *batch, 2)."""
        drawn = self.usual.sample(sample_shape)
        return torch.stack([drawn, torch.full_like(drawn, _USUAL)], -1)

    @property
    def usual(self) -> Distribution:
        """The distribution of the count out of ten trials, (*batch,)."""
        return self.given(torch.full(self.batch_shape, _USUAL, dtype=torch.float64, device=self.device))
