"""The null model of tokens: their shares, whatever comes before."""

from dataclasses import dataclass

import numpy as np

_HALF = 0.5
"""Added to each count (Krichevsky & Trofimov, 1981)."""


@dataclass(frozen=True)
class Unigram:
    """Shares of tokens from how often each is scored in the training rows.

    Attributes:
        count: (K,).
    """

    count: np.ndarray

    @property
    def total(self) -> float:
        """Number of tokens, N."""
        return float(self.count.sum())

    @property
    def is_smoothed(self) -> bool:
        """Whether the shares are those with ½ added: some token does not occur, and would have probability zero."""
        return bool((self.count == 0).any())

    @property
    def share(self) -> np.ndarray:
        """Shares c / N, or (c + ½) / (N + K/2) where some c is zero, (K,); their logarithms are finite always."""
        return self.smoothed if self.is_smoothed else self.count / self.total

    @property
    def smoothed(self) -> np.ndarray:
        """(c + ½) / (N + K/2), (K,): the centre of the prior of tables."""
        return (self.count + _HALF) / (self.total + _HALF * len(self.count))

    @property
    def nll(self) -> float:
        """Mean NLL of the training tokens under `share`, in nats per token; without smoothing it is their entropy."""
        return float(-(self.count @ np.log(self.share)) / self.total)

    @property
    def infimum(self) -> float:
        """The entropy of c / N, in nats per token: the infimum of the mean NLL of the training tokens."""
        some = self.count[self.count > 0]
        return float(-(some @ np.log(some / self.total)) / self.total)
