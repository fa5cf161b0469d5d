"""Small streams of tokens for tests: documents of given sizes, and what a plain loop says of them."""

import numpy as np
import torch

from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import windows


def spans_of(sizes: list[int], start: int = 0) -> np.ndarray:
    """The positions (start, stop) of documents one behind the other, (num_documents, 2)."""
    ends = start + np.cumsum(sizes)
    return np.stack([ends - sizes, ends], 1)


def rows_of(stream: np.ndarray, spans: np.ndarray, length: int, stride: int | None = None) -> TokenRows:
    """The rows of documents of a stream."""
    return TokenRows(torch.from_numpy(stream), windows(torch.from_numpy(spans), length, stride), length)


def markov_text(num_tokens: int, size: int, seed: int) -> np.ndarray:
    """A stream of a Markov chain of order 1 with sparse, uneven transitions, uint8."""
    rng = np.random.default_rng(seed)
    steps = rng.dirichlet(np.full(num_tokens, 0.3), num_tokens).cumsum(1)
    draws, found = rng.random(size), [0]
    for draw in draws[1:]:
        found.append(min(int(np.searchsorted(steps[found[-1]], draw)), num_tokens - 1))
    return np.array(found, dtype=np.uint8)
