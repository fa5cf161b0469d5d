"""NLL of the scored tokens of rows under an n-gram, by row and in total."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from mlefw.baseline.ngram.ngram import Ngram
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows

_BLOCK = 2**18
"""Tokens worked on at a time."""


class Scores(NamedTuple):
    """Sums of each row.

    Attributes:
        nll: Σ w·nll of the scored tokens, in nats, (n,); infinite where one has probability zero.
        weight: number of scored tokens, or the sum of their weights, (n,).
        unseen: the number, or the sum of weights, of those of probability zero, (n,).
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
        tokens = float(self.unseen.sum())
        if tokens:
            whole = int(tokens) if tokens.is_integer() else tokens
            return {"unseen": {"tokens": whole, "share": tokens / float(self.weight.sum())}}
        return {"nll_nats": self.mean}


def token_nll(ngram: Ngram, rows: TokenRows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The NLL of each position in nats, and its weight, 1 or 0, both (b, length), for consecutive blocks of rows.

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
        yield nll, scored.astype(float)


def pair_nll(ngram: Ngram, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The NLL of each label y given the id x, or the context, at its position, in nats, and its weight, in blocks.

    Both are (b, *positions), as x and y are; the NLL is 0 where the weight is. Only the first level is used.
    """
    size = max(1, _BLOCK // max(1, rows.weight[:1].numel()))
    for part in rows.blocks(size):
        weight = part.weight.double().numpy()
        key = (ngram.ids(part) * len(ngram.base) + part.y.long()).numpy()[weight > 0]
        nll = np.zeros(weight.shape)
        with np.errstate(divide="ignore"):
            nll[weight > 0] = -np.log(ngram.of_keys(key, 1))
        yield nll, weight


def score(ngram: Ngram, rows: Rows) -> Scores:
    """The sums of each row, in one pass in blocks: of windows of tokens by `token_nll`, else by `pair_nll`."""
    blocks = token_nll(ngram, rows) if isinstance(rows, TokenRows) else pair_nll(ngram, rows)
    parts = [
        tuple(_row_sums(one) for one in (np.where(weight > 0, nll * weight, 0.0), weight, weight * np.isinf(nll)))
        for nll, weight in blocks
    ]
    return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _row_sums(values: np.ndarray) -> np.ndarray:
    sums: np.ndarray = values.reshape(len(values), -1).sum(1)
    return sums
