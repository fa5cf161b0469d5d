"""The MLE of the table of the next token by the previous one, which is the linear softmax MLE on that token."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlefw.baseline.ngram.counts import Counts
from mlefw.baseline.ngram.ngram import Level, Ngram, residual


@dataclass(frozen=True)
class BigramMle:
    """p(b|a) = c_ab / n_a.

    Attributes:
        counts: counts of pairs of tokens.
    """

    counts: Counts

    @property
    def exists(self) -> bool:
        """Whether every token follows every context that occurs: else some logits go to minus infinity."""
        return len(self.counts.key) == len(self.counts.context) * self.counts.num_tokens

    @property
    def nll(self) -> float:
        """−Σ c ln(c / n) / N, in nats per token: the least mean NLL of a table, over logits only the infimum of it."""
        count = self.counts.count
        share = count / self.counts.context_count[self.counts.context_of_key]
        return float(-(count @ np.log(share)) / self.counts.total)

    @property
    def num_pairs(self) -> int:
        """Number of pairs of tokens, K², whether they occur or not."""
        return self.counts.num_contexts * self.counts.num_tokens

    @property
    def num_unseen_pairs(self) -> int:
        """Number of pairs of tokens that never occur."""
        return self.num_pairs - len(self.counts.key)

    @property
    def num_parameters(self) -> int:
        """A (K − 1) for A contexts that occur."""
        return len(self.counts.context) * (self.counts.num_tokens - 1)

    @property
    def reason(self) -> str | None:
        """Why there is no maximum over logits, in words; None if there is one."""
        if self.exists:
            return None
        return f"{self.num_unseen_pairs:,} of {self.num_pairs:,} pairs never occur: their logits go to minus infinity"

    @cached_property
    def ngram(self) -> Ngram:
        """The table, under which a pair that never occurs has probability zero."""
        base = self.counts.of_tokens() / self.counts.total
        return Ngram(base, (Level(self.counts, 0.0),))

    @property
    def residual(self) -> float:
        """Largest violation of the score equations, |n_a p(b|a) − c_ab| / N."""
        return residual(self.ngram)
