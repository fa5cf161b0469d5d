"""The tokens of a stream that windows score, as positions in blocks of bounded size."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import Windows

_BLOCK = 2**18
"""Tokens worked on at a time: positions of 8 bytes that stay in the cache."""


def scored_tokens(rows: TokenRows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions in the stream of all scored tokens, (n,), and how many tokens of their document precede each, (n,).

    They come window by window, in blocks of bounded size. Context reaches back to the beginning of the document, also
    where a window begins later.
    """
    first, size, origin = (column.numpy() for column in _intervals(rows.windows))
    ends = np.cumsum(size)
    hidden = None if rows.hidden is None else rows.hidden.numpy()
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        # The intervals that reach into the block; most blocks of a long text lie within one.
        low, high = np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop, "left") + 1
        shift, begin = first[low:high] - (ends[low:high] - size[low:high]), origin[low:high]
        if high - low > 1:
            sizes = np.minimum(ends[low:high], stop) - np.maximum(ends[low:high] - size[low:high], start)
            shift, begin = np.repeat(shift, sizes), np.repeat(begin, sizes)
        position = np.arange(start, stop) + shift
        if hidden is not None:
            kept = ~hidden[position]
            position, begin = position[kept], begin[kept] if high - low > 1 else begin
        yield position, position - begin


def scored_counts(rows: TokenRows, num_tokens: int) -> np.ndarray:
    """How often each of K tokens is scored, (K,) int64."""
    found, stream = np.zeros(num_tokens, dtype=np.int64), rows.stream.numpy()
    for position, _ in scored_tokens(rows):
        np.add.at(found, stream[position], 1)
    return found


class _Intervals(NamedTuple):
    """Runs of scored tokens: the first position, their number, and the beginning of the document, (n,) int64."""

    first: Tensor
    size: Tensor
    origin: Tensor


def _intervals(windows: Windows) -> _Intervals:
    """The runs of scored tokens of windows in their order; windows that touch make one."""
    kept = windows.take(windows.stop > windows.skip)
    first, count = kept.start + kept.skip + 1, kept.stop - kept.skip
    apart = (first[1:] != first[:-1] + count[:-1]) | (kept.origin[1:] != kept.origin[:-1])
    group = torch.cumsum(torch.cat([apart.new_zeros(min(len(first), 1)), apart]), 0)
    begins = torch.cat([apart.new_ones(min(len(first), 1)), apart])
    total = torch.zeros(int(begins.sum()), dtype=torch.int64).index_add_(0, group, count)
    return _Intervals(first[begins], total, kept.origin[begins])
