"""NLL of the scored tokens of rows under an n-gram, by row and in total."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from mlefw.baseline.ngram.ngram import Ngram
from mlefw.rows.tokens import TokenRows

_BLOCK = 2**18
"""Tokens worked on at a time."""


class Scores(NamedTuple):
    """Sums of each row.

    Attributes:
        nll: Σ of the NLL of the scored tokens, in nats, (n,); infinite where one has probability zero.
        weight: number of scored tokens, (n,).
        unseen: number of scored tokens of probability zero, (n,).
    """

    nll: np.ndarray
    weight: np.ndarray
    unseen: np.ndarray

    @property
    def mean(self) -> float:
        """Mean NLL in nats per token; infinite if some token has probability zero."""
        return float(self.nll.sum() / self.weight.sum())

    def figures(self) -> dict[str, float | dict[str, float]]:
        """`nll_nats`; or `unseen` alone, the number and share of tokens of probability zero, where it is infinite."""
        tokens = int(self.unseen.sum())
        if tokens:
            return {"unseen": {"tokens": tokens, "share": tokens / float(self.weight.sum())}}
        return {"nll_nats": self.mean}


def token_nll(ngram: Ngram, rows: TokenRows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The NLL of each position in nats, and whether it is scored, both (b, length), for consecutive blocks of rows.

    Positions that are not scored have 0. Context reaches back to the beginning of the document, also where a window
    begins later.
    """
    size = max(1, _BLOCK // rows.length)
    for start in range(0, rows.num_rows, size):
        some = rows.take(slice(start, start + size))
        assert isinstance(some, TokenRows)
        index = torch.arange(some.num_rows)
        scored = (some.take(index).weight > 0).numpy()
        first = some.windows.start + 1
        target = (first.unsqueeze(1) + torch.arange(rows.length)).numpy()[scored]
        origin = some.windows.origin.unsqueeze(1).expand(-1, rows.length).numpy()[scored]
        nll = np.zeros(scored.shape)
        with np.errstate(divide="ignore"):
            nll[scored] = -np.log(ngram.of_positions(rows, target, target - origin))
        yield nll, scored


def score(ngram: Ngram, rows: TokenRows) -> Scores:
    """The sums of each row, in one pass in blocks."""
    parts = [(nll.sum(1), scored.sum(1), np.isinf(nll).sum(1)) for nll, scored in token_nll(ngram, rows)]
    return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))
