"""Counts, tables and evidence of n-grams against plain loops, on small streams of documents."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from token_texts import markov_text, rows_of, spans_of

from mlefw.baseline.ngram.bigram_mle import BigramMle
from mlefw.baseline.ngram.counts import Counts, count_ngrams, count_pairs
from mlefw.baseline.ngram.evidence import MOST_LOG
from mlefw.baseline.ngram.ngram import Level, Ngram, fit_ngram, fit_table, residual
from mlefw.baseline.ngram.scores import score, token_nll
from mlefw.baseline.ngram.unigram import Unigram
from mlefw.errors import UsageError
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows

SIZES = [700, 3, 1, 2, 90, 5, 1, 200]
K = 7


@cache
def stream() -> np.ndarray:
    return markov_text(K, sum(SIZES), seed=3)


def rows(stride: int | None = None, dtype: type = np.uint8) -> TokenRows:
    return rows_of(stream().astype(dtype), spans_of(SIZES), 16, stride)


def looped(order: int) -> Counter:
    """How often each tuple of `order` + 1 tokens occurs within a document."""
    documents = [stream()[start:stop].tolist() for start, stop in spans_of(SIZES)]
    return Counter(tuple(one[t - order : t + 1]) for one in documents for t in range(order, len(one)))


def as_counter(counts: Counts) -> dict:
    powers = K ** np.arange(counts.order, -1, -1)
    return {tuple(key // powers % K): int(n) for key, n in zip(counts.key, counts.count, strict=True)}


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("stride", "dtype"), [(None, np.uint8), (5, np.uint16), (16, np.int32)])
def test_counts_are_those_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, dense: bool, order: int, stride: int | None, dtype: type
) -> None:
    monkeypatch.setattr("mlefw.rows.scored_tokens._BLOCK", 50)
    if not dense:
        monkeypatch.setattr("mlefw.baseline.ngram.counts._MOST_DENSE", 1)
        monkeypatch.setattr("mlefw.baseline.ngram.counts._MOST_LOOKED_UP", 1)
    counts, expected = count_ngrams(rows(stride, dtype), K, order), looped(order)
    assert counts.count.dtype == np.int64
    assert as_counter(counts) == expected
    assert counts.total == sum(expected.values())
    every = np.arange(min(K ** (order + 1), 3000))
    digits = [tuple(key // K ** np.arange(order, -1, -1) % K) for key in every]
    assert counts.of_keys(every).tolist() == [expected[one] for one in digits]
    context = Counter()
    for one, n in expected.items():
        context[one[:-1]] += n
    assert counts.of_contexts(every).tolist() == [context[one[:-1]] for one in digits]
    assert counts.context_count.sum() == counts.total


def test_sorted_keys_are_merged_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.rows.scored_tokens._BLOCK", 2**10)
    text = np.random.default_rng(0).integers(0, 3000, 300_000).astype(np.uint16)
    found = count_ngrams(rows_of(text, spans_of([len(text)]), 64), 3000, 2)
    assert 3000**3 > 2**24
    triples = (text[:-2].astype(np.int64) * 3000 + text[1:-1]) * 3000 + text[2:]
    key, count = np.unique(triples, return_counts=True)
    assert np.array_equal(found.key, key)
    assert np.array_equal(found.count, count)


def test_only_scored_tokens_are_counted() -> None:
    part = rows().take(slice(3, 20))
    assert isinstance(part, TokenRows)
    block = part.take(torch.arange(part.num_rows))
    scored = block.weight > 0
    expected = Counter(zip(block.x[scored].tolist(), block.y[scored].tolist(), strict=True))
    assert as_counter(count_ngrams(part, K, 1)) == expected


def test_unknown_tokens_are_neither_counted_nor_context() -> None:
    hidden = torch.zeros(sum(SIZES), dtype=torch.bool)
    hidden[[5, 300, 301, 720]] = True
    some = TokenRows(rows().stream, rows().windows, 16, hidden)
    cut = [t for t in range(sum(SIZES)) if not hidden[t]]
    expected: Counter = Counter()
    for start, stop in spans_of(SIZES):
        for t in range(start + 1, stop):
            if t in cut and t - 1 in cut:
                expected[stream()[t - 1], stream()[t]] += 1
    assert as_counter(count_ngrams(some, K, 1)) == expected
    table = fit_ngram(rows(), K)
    found = np.concatenate([np.where(weight > 0, nll, np.nan) for nll, weight in token_nll(table, some)])
    positions = (some.windows.start.unsqueeze(1) + 1 + torch.arange(16)).numpy()
    assert np.isnan(found[positions == 300]).all()
    # After a token that is not known the bigram knows no more than the null model.
    np.testing.assert_allclose(
        found[(positions == 302) & ~np.isnan(found)], -np.log(table.base[stream()[302]]), rtol=1e-14
    )


def probability(tokens: list[int], at: int, order: int, concentration: list[float], base: np.ndarray) -> float:
    """p(token | up to `order` tokens before it), by the recursion over loops' counts."""
    found = float(base[tokens[at]])
    for size in range(1, min(order, at) + 1):
        context, count = tuple(tokens[at - size : at]), looped(size)
        seen, beta = sum(n for one, n in count.items() if one[:-1] == context), concentration[size - 1]
        found = (count[(*context, tokens[at])] + beta * found) / (seen + beta)
    return found


@pytest.mark.parametrize("stride", [None, 5])
def test_probabilities_back_off_to_shorter_contexts(stride: int | None) -> None:
    ngram = fit_ngram(rows(), K, order=3)
    betas = [level.concentration for level in ngram.levels]
    held = [2, 3, 1, 0, 6, 6, 6, 6, 5, 4, 0, 1]
    part = rows_of(np.array(held + held[:2], dtype=np.uint8), spans_of([12, 2]), 4, stride and 3)
    expected = [-math.log(probability(held, t, 3, betas, ngram.base)) for t in range(1, 12)]
    expected += [-math.log(probability(held[:2], 1, 3, betas, ngram.base))]
    found = np.concatenate([nll[weight > 0] for nll, weight in token_nll(ngram, part)])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    sums = score(ngram, part)
    assert sums.weight.sum() == 12
    np.testing.assert_allclose(sums.mean, np.mean(expected), rtol=1e-12)
    np.testing.assert_allclose(sums.nll, [(n * s).sum() for n, s in _rows(ngram, part)], rtol=1e-14)


def _rows(ngram: Ngram, part: TokenRows) -> list[tuple[np.ndarray, np.ndarray]]:
    return [pair for nll, scored in token_nll(ngram, part) for pair in zip(nll, scored, strict=True)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_of_the_next_token_sum_to_one(order: int) -> None:
    ngram = fit_ngram(rows(), K, order)
    total = ngram.of_keys(np.arange(K ** (order + 1)), order).reshape(-1, K).sum(1)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)


def test_the_certificate_sees_a_wrong_table(monkeypatch: pytest.MonkeyPatch) -> None:
    ngram = fit_ngram(rows(), K)
    assert residual(ngram) < 1e-15
    right = Level.blend
    monkeypatch.setattr(Level, "blend", lambda *arguments: right(*arguments) * (1 + 1e-9))
    assert residual(ngram) > 1e-12


def test_the_map_is_the_maximum_in_logits() -> None:
    """Minus the gradient of Σ c ln p + β Σ u ln p over logits is (n + β) p − c − β u: torch says that it vanishes."""
    level = fit_ngram(rows(), K).levels[0]
    table = torch.from_numpy(fit_ngram(rows(), K).of_keys(np.arange(K * K), 1).reshape(K, K))
    logits = table.log().requires_grad_()
    count = torch.from_numpy(level.counts.of_keys(np.arange(K * K)).reshape(K, K))
    prior = level.concentration * torch.from_numpy(Unigram(level.counts.of_tokens()).smoothed)
    ((count + prior) * logits.log_softmax(1)).sum().backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) / level.counts.total < 1e-15


def test_a_token_that_training_lacks_has_a_finite_null() -> None:
    null = Unigram(np.array([3, 0, 5]))
    assert null.is_smoothed
    np.testing.assert_allclose(null.share, np.array([3.5, 0.5, 5.5]) / 9.5, rtol=1e-15)
    np.testing.assert_allclose(null.nll, -(3 * np.log(3.5 / 9.5) + 5 * np.log(5.5 / 9.5)) / 8, rtol=1e-15)
    np.testing.assert_allclose(null.infimum, -(3 * np.log(3 / 8) + 5 * np.log(5 / 8)) / 8, rtol=1e-15)


def test_a_context_that_training_lacks() -> None:
    text = np.array([0, 1, 0, 1, 1, 0, 2, 2, 2], dtype=np.uint8)
    train, held = rows_of(text[:7], spans_of([7]), 3), rows_of(text, spans_of([7, 2]), 3)
    ngram = fit_ngram(train, 4)
    np.testing.assert_allclose(ngram.of_keys(np.array([8, 9, 10, 11]), 1), ngram.base, rtol=1e-15)
    mle = BigramMle(count_ngrams(train, 4, 1))
    assert mle.num_parameters == 2 * 3
    assert mle.num_unseen_pairs == 16 - 4
    found = score(mle.ngram, held)
    assert found.figures() == {"unseen": {"tokens": 1, "share": 1 / 7}}
    assert found.unseen.tolist() == [0, 0, 1]


def test_independent_tokens_have_a_concentration_at_the_bound() -> None:
    # Every pair occurs equally often: the more the tables are those of the null model, the better.
    text = np.array([0, 0, 1, 1] * 500 + [0], dtype=np.uint8)
    level = fit_ngram(rows_of(text, spans_of([len(text)]), 8), 2).levels[0]
    assert level.is_bound
    assert level.concentration == np.exp(MOST_LOG)


def test_a_table_is_stored_as_arrays(tmp_path) -> None:
    ngram = fit_ngram(rows(), K, 2)
    np.savez(tmp_path / "baseline.npz", **ngram.arrays())
    with np.load(tmp_path / "baseline.npz") as parts:
        again = Ngram.from_arrays(parts)
    assert again.order == 2
    assert again.levels[0].counts.count.dtype == np.int64
    assert np.array_equal(score(again, rows()).nll, score(ngram, rows()).nll)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"baseline\.order=0"):
        fit_ngram(rows(), K, 0)
    with pytest.raises(UsageError, match=r"baseline\.order=3 with 65536 tokens"):
        count_ngrams(rows(), 65536, 3)
    for smoothing in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match=r"baseline\.smoothing="):
            fit_ngram(rows(), K, 1, smoothing)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_pairs_of_ids_and_labels(monkeypatch: pytest.MonkeyPatch, dense: bool, whole: bool) -> None:
    monkeypatch.setattr("mlefw.baseline.ngram.counts._BLOCK", 60)
    monkeypatch.setattr("mlefw.baseline.ngram.scores._BLOCK", 60)
    if not dense:
        monkeypatch.setattr("mlefw.baseline.ngram.counts._MOST_DENSE", 1)
        monkeypatch.setattr("mlefw.baseline.ngram.counts._MOST_LOOKED_UP", 1)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (40, 5, 2)).astype(np.uint8), rng.integers(0, 4, (40, 5, 2))
    weight = rng.integers(0, 3, (40, 5, 2)) * (1.0 if whole else 0.3)
    data = Rows(*map(torch.from_numpy, (x, y, weight, np.zeros((40, 5, 2)))))
    counts = count_pairs(data, 9, 4)
    expected = np.zeros((9, 4))
    np.add.at(expected, (x, y), weight)
    np.testing.assert_allclose(counts.of_keys(np.arange(36)).reshape(9, 4), expected, rtol=1e-13)
    np.testing.assert_allclose(counts.of_contexts(4 * np.arange(9)), expected.sum(1), rtol=1e-13)
    assert counts.count.dtype == (np.int64 if whole else np.float64)
    assert BigramMle(counts).num_pairs == 36
    table = fit_table(counts, 0.5)
    plain = (expected + 0.5) / (expected.sum(1, keepdims=True) + 2)
    found = score(Ngram.from_arrays(table.arrays()), data)
    nll = -weight * np.log(plain[x, y])
    np.testing.assert_allclose(found.nll, nll.reshape(40, -1).sum(1), rtol=1e-12)
    np.testing.assert_allclose(found.weight, weight.reshape(40, -1).sum(1), rtol=1e-12)
    np.testing.assert_allclose(found.mean, nll.sum() / weight.sum(), rtol=1e-12)


def test_gathered_windows_have_the_pairs_of_the_stream() -> None:
    gathered, counts = rows().take(torch.arange(rows().num_rows)), count_ngrams(rows(), K, 1)
    pairs = count_pairs(gathered, K, K)
    assert as_counter(pairs) == as_counter(counts)
    table = fit_table(pairs)
    assert table.levels[0].concentration == fit_ngram(rows(), K).levels[0].concentration
    assert np.array_equal(score(table, gathered).nll, score(table, rows()).nll)
