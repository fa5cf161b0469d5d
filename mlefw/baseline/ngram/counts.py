"""How often each token follows each context in the scored tokens of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlefw.baseline.ngram.keys import check_order, has_context, keys
from mlefw.baseline.ngram.pixels import PixelContext
from mlefw.rows.rows import Rows
from mlefw.rows.scored_tokens import scored_tokens
from mlefw.rows.tokens import TokenRows

_MOST_DENSE = 2**24
"""Most keys of which each has a number of its own while counting; more are sorted."""

_BLOCK = 2**18
"""Pairs worked on at a time."""

_MOST_LOOKED_UP = 2**22
"""Most keys for which counts are looked up in a table; more are searched among those that occur."""


@dataclass(frozen=True)
class Counts:
    """Numbers of contexts of `order` tokens followed by a token, for those that occur.

    Attributes:
        order: number of tokens of a context.
        num_tokens: number of different tokens, K.
        key: context and next token as digits in base K, the next token last, (m,) int64, ascending.
        count: how often each occurs, (m,) int64, 1 or more; float64 where rows have fractional weights.
        num_inputs: number of different contexts, if it is not K^order.
    """

    order: int
    num_tokens: int
    key: np.ndarray
    count: np.ndarray
    num_inputs: int | None = None

    @property
    def total(self) -> float:
        """Number of tokens that were counted, N."""
        return float(self.count.sum())

    @property
    def num_contexts(self) -> int:
        """Number of different contexts, whether they occur or not."""
        return self.num_tokens**self.order if self.num_inputs is None else self.num_inputs

    @property
    def token(self) -> np.ndarray:
        """The next token of each key, (m,)."""
        return self.key % self.num_tokens

    @cached_property
    def context(self) -> np.ndarray:
        """The contexts that occur, as keys of one token less, (number of them,), ascending."""
        return np.unique(self.key // self.num_tokens)

    @cached_property
    def context_of_key(self) -> np.ndarray:
        """The position in `context` of each key, (m,)."""
        return np.searchsorted(self.context, self.key // self.num_tokens)

    @cached_property
    def context_count(self) -> np.ndarray:
        """How often each context occurs, (number of contexts that occur,)."""
        found = np.zeros(len(self.context), self.count.dtype)
        np.add.at(found, self.context_of_key, self.count)
        return found

    def of_keys(self, key: np.ndarray) -> np.ndarray:
        """How often each of some keys (n,) occurs, (n,)."""
        if self._table is not None:
            return self._table[key]
        return _found(self.key, self.count, key)

    def of_contexts(self, key: np.ndarray) -> np.ndarray:
        """How often the context of each of some keys (n,) occurs, (n,)."""
        if self._context_table is not None:
            return self._context_table[key // self.num_tokens]
        return _found(self.context, self.context_count, key // self.num_tokens)

    def of_tokens(self) -> np.ndarray:
        """How often each token follows any context, (K,)."""
        found = np.zeros(self.num_tokens, self.count.dtype)
        np.add.at(found, self.token, self.count)
        return found

    @cached_property
    def _table(self) -> np.ndarray | None:
        return _dense(self.key, self.count, self.num_contexts * self.num_tokens)

    @cached_property
    def _context_table(self) -> np.ndarray | None:
        return _dense(self.context, self.context_count, self.num_contexts)


def count_ngrams(rows: TokenRows, num_tokens: int, order: int) -> Counts:
    """The counts of the scored tokens that have `order` known tokens of their document before them.

    One pass in blocks: memory beyond the stream is that of the keys that occur, or 8 bytes for each of at most 2^24
    possible ones.

    Raises:
        UsageError: K^(order + 1) is not below 2^63.
    """
    check_order(num_tokens, order)
    return Counts(order, num_tokens, *_tally(_key_blocks(rows, num_tokens, order), num_tokens ** (order + 1)))


def count_pairs(rows: Rows, num_inputs: int, num_tokens: int, context: PixelContext | None = None) -> Counts:
    """The counts of pairs of an id that is read and the label at its position, for rows of any source.

    With `context` it stands for the id.

    Args:
        rows: x (n, *positions), whole numbers below `num_inputs`, and y (n, *positions), below `num_tokens`.
        num_inputs: number of different ids.
        num_tokens: number of different labels, K.
        context: what labels of pixels are counted by, in place of x.
    """
    blocks = _pair_blocks(rows, num_tokens, context)
    key, count = _tally(blocks, num_inputs * num_tokens)
    is_whole = bool((count == np.round(count)).all())
    return Counts(1, num_tokens, key, count.astype(np.int64) if is_whole else count, num_inputs)


_Blocks = Iterator[tuple[np.ndarray, np.ndarray | None]]
"""Keys (n,), and the weight of each, (n,) float64; None if it is 1."""


def _key_blocks(rows: TokenRows, num_tokens: int, order: int) -> _Blocks:
    for position, depth in scored_tokens(rows):
        known = has_context(rows, position, depth, order)
        yield keys(rows, position if known.all() else position[known], num_tokens, order), None


def _pair_blocks(rows: Rows, num_tokens: int, context: PixelContext | None) -> _Blocks:
    size = max(1, _BLOCK // max(1, rows.weight[:1].numel()))
    for part in rows.blocks(size):
        kept = part.weight > 0
        # Converted first: torch indexes no uint16.
        key = (part.x.long() if context is None else context.ids(part)) * num_tokens + part.y.long()
        yield key[kept].numpy(), part.weight[kept].double().numpy()


def _tally(blocks: _Blocks, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys below `size` that occur, ascending, and the sum of their weights: int64 if all are 1, else float64."""
    if size > _MOST_DENSE:
        return _sorted_counts(blocks)
    table = None
    for key, weight in blocks:
        if table is None:
            table = np.zeros(size, np.int64 if weight is None else np.float64)
        np.add.at(table, key, 1 if weight is None else weight)
    table = np.zeros(size, dtype=np.int64) if table is None else table
    found = np.flatnonzero(table)
    return found, table[found]


def _sorted_counts(blocks: _Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Keys that occur, ascending, and how often.

    Counted keys are merged when they are as many as those of all blocks merged before, which sorts each of them a
    number of times that grows with the logarithm of their number alone.
    """
    whole = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for block, weight in blocks:
        key, code, count = np.unique(block, return_inverse=True, return_counts=True)
        waiting.append((key, count if weight is None else np.bincount(code, weight, len(key))))
        if sum(len(key) for key, _ in waiting) > max(len(whole[0]), 2**20):
            whole, waiting = _merged([whole, *waiting]), []
    return _merged([whole, *waiting])


def _merged(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    key, count = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Stable sorting finds the ascending runs and merges them.
    order = np.argsort(key, kind="stable")
    key, count = key[order], count[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(key), 1), dtype=bool), key[1:] != key[:-1]]))
    return key[first], np.add.reduceat(count, first) if len(first) else count


def _dense(key: np.ndarray, count: np.ndarray, size: int) -> np.ndarray | None:
    if size > _MOST_LOOKED_UP:
        return None
    table = np.zeros(size, count.dtype)
    table[key] = count
    return table


def _found(known: np.ndarray, count: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The count of each key (n,) among known ones, (n,); 0 for others."""
    if not len(known):
        return np.zeros(len(key), count.dtype)
    place = np.minimum(np.searchsorted(known, key), len(known) - 1)
    return np.where(known[place] == key, count[place], 0)
