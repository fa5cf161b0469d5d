"""Likelihoods are lengths of codes: of one that learns while it goes, and of an arithmetic coder that decodes."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from token_texts import markov_text, rows_of, spans_of

from mlefw.baseline.ngram.ngram import Ngram, fit_ngram
from mlefw.baseline.ngram.scores import score

BITS, PRECISION = 48, 30
TOP, HALF, QUARTER = (1 << BITS) - 1, 1 << BITS - 1, 1 << BITS - 2


def edges(prob: np.ndarray) -> np.ndarray:
    """Cumulative whole numbers up to about 2^30, each token at least 1."""
    return np.concatenate([[0], np.cumsum(np.maximum(1, np.round(prob * 2**PRECISION)).astype(np.int64))])


def narrowed(low: int, high: int, edge: np.ndarray, token: int) -> tuple[int, int]:
    """The part of an interval that belongs to a token."""
    width, total = high - low + 1, int(edge[-1])
    return low + width * int(edge[token]) // total, low + width * int(edge[token + 1]) // total - 1


def encode(tokens: list[int], forecast: Callable[[list[int]], np.ndarray]) -> list[int]:
    """The bits of an arithmetic code (Witten, Neal & Cleary, 1987)."""
    low, high, waiting, bits = 0, TOP, 0, []
    for at, token in enumerate(tokens):
        low, high = narrowed(low, high, edges(forecast(tokens[:at])), token)
        while high < HALF or low >= HALF or (low >= QUARTER and high < HALF + QUARTER):
            if high < HALF or low >= HALF:
                first = int(low >= HALF)
                bits += [first] + [1 - first] * waiting
                waiting, off = 0, HALF * first
            else:
                waiting, off = waiting + 1, QUARTER
            low, high = 2 * (low - off), 2 * (high - off) + 1
    first = int(low >= QUARTER)
    return [*bits, first] + [1 - first] * (waiting + 1)


def decode(bits: list[int], count: int, forecast: Callable[[list[int]], np.ndarray]) -> list[int]:
    low, high, tokens, source = 0, TOP, [], iter(bits)
    value = int("".join(str(next(source, 0)) for _ in range(BITS)), 2)
    while len(tokens) < count:
        edge = edges(forecast(tokens))
        place = ((value - low + 1) * int(edge[-1]) - 1) // (high - low + 1)
        token = int(np.searchsorted(edge, place, "right")) - 1
        low, high = narrowed(low, high, edge, token)
        tokens.append(token)
        while high < HALF or low >= HALF or (low >= QUARTER and high < HALF + QUARTER):
            off = HALF * (low >= HALF) if high < HALF or low >= HALF else QUARTER
            low, high, value = 2 * (low - off), 2 * (high - off) + 1, 2 * (value - off) + next(source, 0)
    return tokens


@pytest.mark.parametrize("order", [1, 2])
def test_an_arithmetic_coder_needs_the_nll_and_decodes(order: int) -> None:
    text = markov_text(12, 6000, seed=1)
    ngram = fit_ngram(rows_of(text[:4000], spans_of([4000]), 32), 12, order)
    held = [int(one) for one in text[4000:]]
    tables = [ngram.of_keys(np.arange(12 ** (size + 1)), size).reshape(-1, 12) for size in range(1, order + 1)]

    def forecast(past: list[int]) -> np.ndarray:
        context = [held[0], *past][-order:]
        return tables[len(context) - 1][int(np.polyval(context, 12))]

    found = score(ngram, rows_of(text[4000:].copy(), spans_of([2000]), 32))
    assert found.weight.sum() == 1999
    bits, ideal = encode(held[1:], forecast), found.nll.sum() / np.log(2)
    assert ideal - 1 <= len(bits) <= ideal + 16
    assert decode(bits, 1999, forecast) == held[1:]


def sequential(documents: list[list[int]], base: np.ndarray, beta: float) -> Iterator[float]:
    """Nats of each token by the counts before it, for contexts of one token."""
    counts = np.zeros((len(base), len(base)))
    for document in documents:
        for previous, token in pairwise(document):
            row = counts[previous]
            yield -np.log((row[token] + beta * base[token]) / (row.sum() + beta))
            row[token] += 1


@pytest.mark.parametrize("smoothing", [None, 0.5, 0.01])
def test_the_evidence_is_the_length_of_a_code_that_learns(smoothing: float | None) -> None:
    text, sizes = markov_text(12, 6000, seed=2), [5000, 400, 1, 599]
    ngram = fit_ngram(rows_of(text, spans_of(sizes), 32), 12, 1, smoothing)
    documents = [text[start:stop].tolist() for start, stop in spans_of(sizes)]
    nats = list(sequential(documents, ngram.base, ngram.levels[0].concentration))
    assert len(nats) == 6000 - 4
    assert ngram.levels[0].code_length is not None
    np.testing.assert_allclose(ngram.levels[0].code_length, np.mean(nats), rtol=0, atol=1e-12)


def test_the_evidence_of_triples_is_the_length_of_a_code_that_learns() -> None:
    text = markov_text(5, 3000, seed=4)
    ngram = fit_ngram(rows_of(text, spans_of([3000]), 32), 5, 2)
    bigram, level = Ngram(ngram.base, ngram.levels[:1]), ngram.levels[1]
    counts, total = np.zeros((5, 5, 5)), 0.0
    shorter = bigram.of_keys(np.arange(25), 1).reshape(5, 5)
    for a, b, c in zip(text[:-2], text[1:-1], text[2:], strict=True):
        row = counts[a, b]
        total -= np.log((row[c] + level.concentration * shorter[b, c]) / (row.sum() + level.concentration))
        row[c] += 1
    np.testing.assert_allclose(level.code_length, total / 2998, rtol=0, atol=1e-12)
