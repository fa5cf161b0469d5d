"""Tables of the next token as exact estimates with their certificates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mlefw.baseline.ngram.bigram_mle import BigramMle
from mlefw.baseline.ngram.counts import count_ngrams, count_pairs
from mlefw.baseline.ngram.ngram import Ngram, fit_longer, fit_table, residual
from mlefw.baseline.ngram.pixels import PixelContext, orders
from mlefw.baseline.ngram.scores import score
from mlefw.baseline.ngram.unigram import Unigram
from mlefw.baseline.work import LeftOutError
from mlefw.head.base import Head
from mlefw.head.categorical import CategoricalHead
from mlefw.rows.label_counts import label_counts
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.tokens import TokenRows

TEXT_ORDER = 2
"""Tokens of context of the longest tables of a text."""

_HALF = 0.5
"""Added to each count of a level of a pixel (Krichevsky & Trofimov, 1981)."""


@dataclass(frozen=True)
class NgramEstimate:
    """A table of the next token by the tokens before it; attributes are as those of `Solution`.

    Attributes:
        ngram: the table.
        objective: mean NLL of the training tokens, in nats per token; of an MLE that does not exist the infimum.
        residual: largest violation of the score equations, in shares of all tokens.
        exists: whether the logits of the estimate are finite.
        reason: why they are not.
        infimum: the infimum of the mean NLL where they are not.
    """

    solver: ClassVar[str] = "counts, in closed form"
    num_steps: ClassVar[int] = 1
    converged: ClassVar[bool] = True
    is_global: ClassVar[bool] = True
    matrix_free: ClassVar[bool] = False
    shown_by: ClassVar[None] = None
    gap: ClassVar[float] = 0.0

    ngram: Ngram
    objective: float
    residual: float
    exists: bool = True
    reason: str | None = None
    infimum: float | None = None

    @property
    def may_exist(self) -> bool:
        """Whether the estimate exists."""
        return self.exists

    def content(self) -> dict[str, Any]:
        """The certificate and the facts, as they stand in `baseline.json`."""
        value = {"nll_nats": self.objective} if self.exists else {"reason": self.reason, "nll_infimum": self.infimum}
        parts = {"solver": self.solver, "residual": self.residual, "is_global": self.is_global}
        return {"exists": self.exists, **value, **parts, **self.facts()}

    def facts(self) -> dict[str, Any]:
        """What the table is: tokens of context, prior and length of the code that learns while it goes, by name.

        `code_length_nats` is per counted token, and holds for the longest contexts given the shorter ones.
        """
        level = self.ngram.levels[-1]
        facts: dict[str, Any] = {"order": self.ngram.order, "num_contexts": len(level.counts.context)}
        if level.code_length is not None:
            facts |= {"concentration": level.concentration, "code_length_nats": level.code_length}
            facts |= {"at_bound_of_search": True} if level.is_bound else {}
        return facts


@dataclass(frozen=True)
class NgramEstimates:
    """The tables of the next token that belong to some rows.

    Attributes:
        mle: MLE by the previous token.
        map: MAP by the previous token, under a Dirichlet prior.
        longer: MAP by more tokens, or of pixels by the largest number of nearest ones; None where they are not asked
            for, or rows are no text.
        further: further tables of pixels by name: `position`, `nearest_1` and `nearest_4`.
    """

    mle: NgramEstimate
    map: NgramEstimate
    longer: NgramEstimate | None = None
    further: Mapping[str, NgramEstimate] = field(default_factory=dict)


def takes_tokens(shape: RowShape, head: Head) -> bool:
    """Whether rows have a label at each token, so that the tables of labels by tokens are an exact estimate."""
    return shape.num_tokens is not None and shape.positions == shape.input_shape and isinstance(head, CategoricalHead)


def null_table(rows: Rows, num_tokens: int, shape: RowShape) -> Ngram | None:
    """The null model of a text or of pixels as a table without context; None for other rows."""
    if not isinstance(rows, TokenRows) and shape.picture is None:
        return None
    return Ngram(Unigram(label_counts(rows, num_tokens)).share, ())


def ngram_estimates(
    rows: Rows, shape: RowShape, num_labels: int, order: int | None, smoothing: float | None
) -> NgramEstimates:
    """The tables of the next token, or of the label at each token.

    Args:
        rows: the training rows, of which `takes_tokens` holds.
        shape: their shape.
        num_labels: number of different labels.
        order: most tokens of context, which only windows of a text have more than one of (None for 2); or the largest
            number of nearest pixels (None for 10, or fewer where there are many levels).
        smoothing: added to each count, or None for a prior centred at the null model with the largest evidence.

    Raises:
        UsageError: an order whose keys exceed 64 bit, or a smoothing that is not positive.
    """
    assert shape.num_tokens is not None
    if isinstance(rows, TokenRows):
        pairs = count_ngrams(rows, num_labels, 1)
    else:
        pairs = count_pairs(rows, shape.num_tokens, num_labels)
    if not len(pairs.key):
        raise LeftOutError("no token follows another one")
    mle, ngram = BigramMle(pairs), fit_table(pairs, smoothing)
    first = NgramEstimate(
        *(mle.ngram, mle.nll, mle.residual, mle.exists, mle.reason),
        infimum=None if mle.exists else mle.nll,
    )
    second = NgramEstimate(ngram, score(ngram, rows).mean, residual(ngram))
    if shape.picture is not None:
        tables = _pixel_tables(rows, shape.picture, num_labels, order, smoothing)
        return NgramEstimates(first, second, tables.pop("longer"), tables)
    if not isinstance(rows, TokenRows) or order == 1:
        return NgramEstimates(first, second)
    longer = fit_longer(ngram, rows, order or TEXT_ORDER)
    return NgramEstimates(first, second, NgramEstimate(longer, score(longer, rows).mean, residual(longer)))


def _pixel_tables(
    rows: Rows, picture: tuple[int, int], num_levels: int, order: int | None, smoothing: float | None
) -> dict[str, NgramEstimate]:
    """The tables of the level of a pixel by its position, and by its nearest earlier pixels; the largest is `longer`.

    To each count ½ is added, or `smoothing`: (c + s) / (n + K s), the posterior mean under a symmetric Dirichlet prior.
    """
    *smaller, largest = orders(num_levels, order)
    asked = {"position": 0, **{f"nearest_{m}": m for m in smaller}, "longer": largest}
    found = {}
    for name, count in asked.items():
        context = PixelContext(*picture, num_levels, count)
        context.check()
        counts = count_pairs(rows, context.num_inputs, num_levels, context)
        ngram = replace(fit_table(counts, _HALF if smoothing is None else smoothing), context=context)
        found[name] = NgramEstimate(ngram, score(ngram, rows).mean, residual(ngram))
    return found
