"""The next token by the tokens before it: posterior means of tables under Dirichlet priors, in closed form."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mlefw.baseline.ngram.counts import Counts, count_ngrams
from mlefw.baseline.ngram.evidence import log_evidence, maximise_evidence
from mlefw.baseline.ngram.keys import check_order, has_context, keys
from mlefw.baseline.ngram.pixels import PixelContext
from mlefw.baseline.ngram.unigram import Unigram
from mlefw.errors import UsageError
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows


@dataclass(frozen=True)
class Level:
    """Tables of the next token by contexts of one length, shrunk towards those of contexts one token shorter.

    Attributes:
        counts: the counts.
        concentration: β, in tokens; 0 gives the shares c / n themselves, the MLE.
        code_length: minus the logarithm of the evidence given the shorter contexts, in nats per counted token; None for
            the MLE.
        is_bound: whether β is a bound of the search for the largest evidence.
    """

    counts: Counts
    concentration: float
    code_length: float | None = None
    is_bound: bool = False

    def blend(self, key: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """(c + β p) / (n + β) for keys (n,), p (n,) being the probabilities after the shorter contexts.

        Where n + β is zero, the MLE after a context that never occurs, it is 0.
        """
        weight = self.counts.of_contexts(key) + self.concentration
        seen = self.counts.of_keys(key) + self.concentration * shorter
        blended: np.ndarray = np.divide(seen, weight, out=np.zeros(len(key)), where=weight > 0)
        return blended


@dataclass(frozen=True)
class Ngram:
    """A distribution of the next token given up to `order` tokens before it.

    Where fewer precede a token in its document, the tables of the shorter contexts are used.

    Attributes:
        base: probabilities without context, (K,).
        levels: tables for contexts of 1, 2, … tokens.
        context: what the one table of levels of pixels is by; None where it is the tokens before.
    """

    base: np.ndarray
    levels: tuple[Level, ...]
    context: PixelContext | None = None

    @property
    def order(self) -> int:
        """Number of tokens of the longest contexts."""
        return len(self.levels) if self.context is None else self.context.order

    def ids(self, rows: Rows) -> Tensor:
        """What the label at each position of rows is forecast from, (n, *positions): the id there, or its context."""
        return rows.x.long() if self.context is None else self.context.ids(rows)

    def of_keys(self, key: np.ndarray, order: int) -> np.ndarray:
        """p(token | context) of keys (n,) of contexts of `order` tokens or more, by the first `order` levels, (n,)."""
        prob = self.base[key % len(self.base)]
        for level in self.levels[:order]:
            # The last tokens of the key, as many as this level reads.
            prob = level.blend(key % (level.counts.num_contexts * len(self.base)), prob)
        return prob

    def of_positions(self, rows: TokenRows, position: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """p(token | context) at positions (n,) of the stream, before which `depth` (n,) tokens are known, (n,)."""
        prob = self.base[rows.stream.numpy()[position]]
        for level in self.levels:
            order = level.counts.order
            found = level.blend(keys(rows, position, len(self.base), order), prob)
            prob = np.where(has_context(rows, position, depth, order), found, prob)
        return prob

    def arrays(self) -> dict[str, np.ndarray]:
        """What the distribution is made of, as arrays by name; counts are integers."""
        parts = {"base": self.base, "concentration": np.array([level.concentration for level in self.levels])}
        parts["num_contexts"] = np.array([level.counts.num_contexts for level in self.levels], dtype=np.int64)
        for level in self.levels:
            parts[f"key_{level.counts.order}"] = level.counts.key
            parts[f"count_{level.counts.order}"] = level.counts.count
        if self.context is not None:
            parts["picture"] = np.array([self.context.height, self.context.width, self.context.order], dtype=np.int64)
        return parts

    def check(self) -> None:
        """Check that this can be a distribution, where it was read from a file.

        Raises:
            ValueError: it cannot.
        """
        if self.base.ndim != 1 or not (np.isfinite(self.base).all() and (self.base > 0).all()):
            raise ValueError("probabilities without context that are not positive")
        for level in self.levels:
            counts, size = level.counts, level.counts.num_contexts * len(self.base)
            shapes = counts.key.ndim == 1 and counts.key.shape == counts.count.shape and counts.key.dtype == np.int64
            if not shapes or not (counts.count > 0).all() or not level.concentration >= 0:
                raise ValueError("counts that are not positive, or of another number than their keys")
            if len(counts.key) and (counts.key[0] < 0 or counts.key[-1] >= size or (np.diff(counts.key) <= 0).any()):
                raise ValueError("keys that do not ascend, or that are no tokens")
        sizes = [level.counts.num_contexts for level in self.levels]
        if self.context is not None and sizes != [self.context.num_inputs]:
            raise ValueError("a table of pixels with another number of contexts")

    @classmethod
    def from_arrays(cls, parts: Mapping[str, np.ndarray]) -> "Ngram":
        """The distribution from the content of `arrays`."""
        base, levels = np.asarray(parts["base"]), []
        each = zip(parts["concentration"].tolist(), parts["num_contexts"].tolist(), strict=True)
        for order, (concentration, num_contexts) in enumerate(each, 1):
            key, count = (np.asarray(parts[f"{name}_{order}"]) for name in ("key", "count"))
            levels.append(Level(Counts(order, len(base), key, count, num_contexts), concentration))
        picture = parts.get("picture")
        context = None
        if picture is not None:
            height, width, order = np.asarray(picture).tolist()
            context = PixelContext(height, width, len(base), order)
        return cls(base, tuple(levels), context)


def fit_ngram(rows: TokenRows, num_tokens: int, order: int = 1, smoothing: float | None = None) -> Ngram:
    """The posterior mean of tables of the next token, which is also the MAP in logits.

    p(b|a) = (c_ab + β u_b) / (n_a + β), with u the shares of tokens with ½ added and β by the largest evidence; longer
    contexts alike, each centred at the shorter one. With `smoothing` = s it is p(b|a) = (c_ab + s) / (n_a + K s), the
    prior being centred at equal shares; longer contexts have their β by evidence then, too.

    Raises:
        UsageError: an order whose keys exceed an int64, or a smoothing that is not positive.
    """
    check_order(num_tokens, order)
    return fit_longer(fit_table(count_ngrams(rows, num_tokens, 1), smoothing), rows, order)


def fit_longer(ngram: Ngram, rows: TokenRows, order: int) -> Ngram:
    """The distribution with further levels, up to contexts of `order` tokens, each centred at the shorter one.

    Raises:
        UsageError: an order whose keys exceed an int64.
    """
    num_tokens = len(ngram.base)
    check_order(num_tokens, order)
    for size in range(ngram.order + 1, order + 1):
        counts = count_ngrams(rows, num_tokens, size)
        found = maximise_evidence(counts, ngram.of_keys(counts.key, size - 1))
        ngram = Ngram(ngram.base, (*ngram.levels, Level(counts, *found)))
    return ngram


def fit_table(counts: Counts, smoothing: float | None = None) -> Ngram:
    """As `fit_ngram` of order 1, from counts of pairs.

    Raises:
        UsageError: a smoothing that is not positive.
    """
    num_tokens = counts.num_tokens
    if smoothing is None:
        base = Unigram(counts.of_tokens()).smoothed
        return Ngram(base, (Level(counts, *maximise_evidence(counts, base[counts.token])),))
    if not 0 < smoothing < np.inf:
        raise UsageError(f"baseline.smoothing={smoothing}: expected a positive number, or unigram")
    base, beta = np.full(num_tokens, 1 / num_tokens), num_tokens * smoothing
    length = -log_evidence(counts, base[counts.token], beta) / counts.total
    return Ngram(base, (Level(counts, beta, length),))


def residual(ngram: Ngram) -> float:
    """Largest violation of the score equations of the longest contexts, |(n + β) p − c − β p'| / N.

    p' are the probabilities after the shorter contexts. Of tokens that follow a context in the training rows it is
    measured; for all others, c being zero, it is bounded by the two roundings of (n + β) (β p' / (n + β)).
    """
    level = ngram.levels[-1]
    counts, beta = level.counts, level.concentration
    shorter = ngram.of_keys(counts.key, counts.order - 1)
    found = (counts.of_contexts(counts.key) + beta) * level.blend(counts.key, shorter)
    measured = float(np.abs(found - counts.count - beta * shorter).max(initial=0.0))
    return max(measured, 2.0**-52 * beta) / max(counts.total, 1)
