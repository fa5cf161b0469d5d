"""A Markov chain of order one as a source of text whose entropy rate is known."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mlefw.baseline.ngram.ngram import Ngram
from mlefw.rows.token_stream import TokenStream
from mlefw.rows.tokens import TokenRows


@dataclass(frozen=True)
class MarkovSource:
    """A stationary chain of tokens.

    Attributes:
        transition: p(next | previous), (K, K), all entries positive.
    """

    transition: np.ndarray

    @classmethod
    def drawn(cls, num_tokens: int, random: np.random.Generator) -> "MarkovSource":
        """A chain whose rows are uniform on the simplex, that is, from a Dirichlet distribution of ones."""
        return cls(random.dirichlet(np.ones(num_tokens), num_tokens))

    @property
    def num_tokens(self) -> int:
        """Number of different tokens, K."""
        return len(self.transition)

    @cached_property
    def stationary(self) -> np.ndarray:
        """The distribution π with π P = π, (K,), from the linear equations (P' − I) π = 0 and Σ π = 1."""
        equations = np.vstack([self.transition.T - np.eye(self.num_tokens), np.ones(self.num_tokens)])
        return np.linalg.lstsq(equations, np.append(np.zeros(self.num_tokens), 1.0), rcond=None)[0]

    @property
    def entropy_rate(self) -> float:
        """−Σ π_a p(b|a) ln p(b|a), in nats per token: no model of the next token has a smaller expected NLL."""
        return float(-(self.stationary @ (self.transition * np.log(self.transition)).sum(1)))

    def divergence(self, ngram: Ngram, order: int) -> float:
        """Expected NLL of the first `order` levels of a table minus the entropy rate, in nats per token.

        It is the KL divergence of the table from the chain after contexts in their stationary distribution,
        Σ π(context) p(b | context) ln(p(b | context) / q(b | context)), for a token that has `order` or more before it.
        """
        joint = self.stationary
        for _ in range(max(order, 1)):
            # From p(…, a) to p(…, a, b).
            joint = (joint.reshape(-1, self.num_tokens)[:, :, None] * self.transition).reshape(-1)
        table = ngram.of_keys(np.arange(len(joint)), order)
        truth = np.tile(self.transition.reshape(-1), len(joint) // self.transition.size)
        return float(joint @ np.log(truth / table))

    def chains(self, count: int, length: int, random: np.random.Generator) -> np.ndarray:
        """Independent stationary chains, (count, length) uint8."""
        steps = self.transition.cumsum(1)[:, :-1]
        found = np.empty((length, count), dtype=np.uint8)
        found[0] = random.choice(self.num_tokens, count, p=self.stationary)
        for step, draw in enumerate(random.random((length - 1, count)), 1):
            found[step] = (steps[found[step - 1]] < draw[:, None]).sum(1)
        return found.T

    def row_nll(self, rows: TokenRows) -> torch.Tensor:
        """The mean NLL of each row under the chain itself, in nats per token, (n,)."""
        surprise = -torch.from_numpy(np.log(self.transition))
        return torch.cat([part.row_means(surprise[part.x.long(), part.y.long()]) for part in rows.blocks(4096)])


def as_rows(chains: np.ndarray, length: int) -> TokenRows:
    """The windows of chains (count, size), each of them a document, with `length` positions."""
    count, size = chains.shape
    ends = size * np.arange(1, count + 1)
    documents = np.stack([ends - size, ends], 1)
    rows = TokenStream(np.ascontiguousarray(chains).reshape(-1), documents).rows(documents, length)
    return rows.moving(torch.from_numpy(documents))
