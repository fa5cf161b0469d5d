"""Closed forms for a text of a million characters against reference values and against plain numpy, to 1e-12."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from tiny_shakespeare import NAMES, codes, reference, text

from mlefw.baseline.ngram.bigram_mle import BigramMle
from mlefw.baseline.ngram.ngram import Ngram, fit_ngram, residual
from mlefw.baseline.ngram.scores import score, token_nll
from mlefw.baseline.ngram.unigram import Unigram
from mlefw.reading.documents import as_documents
from mlefw.reading.token_split import split_tokens
from mlefw.rows.clustered import clustered_mean, sequence_units
from mlefw.rows.scored_tokens import scored_counts
from mlefw.rows.tokens import TokenRows
from mlefw.schema.tokens import TokenSchema

K = 65


def known() -> dict:
    return reference()["text"]["tinyshakespeare.txt"]


@cache
def rows() -> dict[str, TokenRows]:
    documents = as_documents(text())
    schema = TokenSchema.learn(documents, "chars", 64)
    stream = schema.code(documents)
    assert schema.num_tokens == K
    parts = split_tokens(stream.documents, "tail", 0.1, 0.1, 0, 64)
    return {name: stream.rows(part, 64) for name, part in parts.items()}


@cache
def fitted() -> Ngram:
    return fit_ngram(rows()["train"], K, order=2)


def pairs(name: str) -> np.ndarray:
    code = codes()[name]
    return np.bincount(code[:-1] * K + code[1:], minlength=K * K).reshape(K, K)


def mean_nll(table: np.ndarray, name: str) -> float:
    count = pairs(name)
    seen = count > 0
    return float(-(count[seen] * np.log(table[seen])).sum() / count.sum())


def test_rows_hold_the_text() -> None:
    for name, part in rows().items():
        assert part.population == len(codes()[name]) - 1
        joined = torch.cat([block.y[block.weight > 0] for block in part.blocks(1000)])
        assert np.array_equal(joined.numpy(), codes()[name][1:])
        assert scored_counts(part, K).tolist() == np.bincount(codes()[name][1:], minlength=K).tolist()


def test_the_null_model() -> None:
    null = Unigram(fitted().levels[0].counts.of_tokens())
    assert not null.is_smoothed
    for name, part in rows().items():
        for share, known_as in ((null.share, "unigram_mle"), (null.smoothed, "unigram_kt")):
            np.testing.assert_allclose(score(Ngram(share, ()), part).mean, known()[known_as][name], rtol=0, atol=1e-12)
    assert null.nll == null.infimum
    np.testing.assert_allclose(null.nll, known()["unigram_mle"]["train"], rtol=0, atol=1e-12)


def test_the_bigram_mle() -> None:
    mle = BigramMle(fitted().levels[0].counts)
    assert np.array_equal(mle.counts.of_keys(np.arange(K * K)).reshape(K, K), pairs("train"))
    np.testing.assert_allclose(mle.nll, known()["bigram_mle"]["train"], rtol=0, atol=1e-12)
    assert mle.num_unseen_pairs == known()["bigram_zero_pairs"]
    assert mle.num_parameters == known()["bigram_parameters"]
    assert not mle.exists
    assert mle.reason is not None
    assert mle.reason.startswith("2,865 of 4,225 pairs never occur")
    assert mle.residual < 1e-15
    found = {name: score(mle.ngram, part) for name, part in rows().items()}
    np.testing.assert_allclose(found["train"].figures()["nll_nats"], mle.nll, rtol=0, atol=1e-12)
    for name in ("validation", "test"):
        tokens, share = known()["bigram_unseen"][name]
        assert found[name].figures() == {"unseen": {"tokens": tokens, "share": share}}
        assert found[name].mean == np.inf


@pytest.mark.parametrize(("smoothing", "known_as"), [(0.5, "half"), (1.0, "one"), (None, "evidence")])
def test_a_given_number_added_to_each_count(smoothing: float | None, known_as: str) -> None:
    smoothing = known()["alpha_evidence"] if smoothing is None else smoothing
    table = fit_ngram(rows()["train"], K, 1, smoothing)
    count = pairs("train")
    plain = (count + smoothing) / (count.sum(1, keepdims=True) + K * smoothing)
    for name, part in rows().items():
        found = score(table, part).mean
        np.testing.assert_allclose(found, known()[f"bigram_add_{known_as}"][name], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found, mean_nll(plain, name), rtol=0, atol=1e-12)
    if known_as == "evidence":
        length = table.levels[0].code_length
        np.testing.assert_allclose(length, known()["evidence_nats_per_token"], rtol=0, atol=1e-12)


def test_the_bigram_map() -> None:
    level = fitted().levels[0]
    np.testing.assert_allclose(level.code_length, known()["evidence_unigram_centred"], rtol=0, atol=1e-12)
    # The reference value of beta comes from a search by values, which stops at the square root of rounding.
    np.testing.assert_allclose(level.concentration, known()["beta_evidence_unigram_centred"], rtol=2e-6)
    assert not level.is_bound
    assert residual(fitted()) < 1e-15
    given = replace(level, concentration=known()["beta_evidence_unigram_centred"])
    count, u = pairs("train"), fitted().base
    for table in (level, given):
        assert residual(Ngram(u, (table,))) < 1e-15
        beta = table.concentration
        plain = (count + beta * u) / (count.sum(1, keepdims=True) + beta)
        np.testing.assert_allclose(plain.sum(1), 1, rtol=0, atol=1e-14)
        for name, part in rows().items():
            found = score(Ngram(u, (table,)), part).mean
            np.testing.assert_allclose(found, mean_nll(plain, name), rtol=0, atol=1e-12)
            close = 1e-12 if table is given else 1e-8
            np.testing.assert_allclose(found, known()["bigram_unigram_centred"][name], rtol=0, atol=close)


def test_beta_has_the_largest_evidence() -> None:
    level, count, u = fitted().levels[0], pairs("train"), fitted().base

    def length(beta: float) -> float:
        seen = gammaln(count + beta * u) - gammaln(beta * u)
        context = gammaln(beta) - gammaln(count.sum(1) + beta)
        return -(seen.sum() + context.sum()) / count.sum()

    np.testing.assert_allclose(level.code_length, length(level.concentration), rtol=0, atol=1e-12)
    step = 1e-3
    low, high = (length(level.concentration * np.exp(sign * step)) for sign in (-1, 1))
    assert min(low, high) > level.code_length
    # The top of the parabola through three points, in ln beta.
    assert abs(step / 2 * (low - high) / (low + high - 2 * level.code_length)) < 1e-4


def test_the_trigram() -> None:
    given = [
        replace(level, concentration=known()[name])
        for level, name in zip(
            fitted().levels, ("beta_evidence_unigram_centred", "gamma_evidence_trigram"), strict=True
        )
    ]
    np.testing.assert_allclose(fitted().levels[1].concentration, known()["gamma_evidence_trigram"], rtol=2e-6)
    for name in NAMES:
        ngram = Ngram(fitted().base, tuple(given))
        found = np.concatenate([nll[weight > 0] for nll, weight in token_nll(ngram, rows()[name])])
        # The reference leaves out the second token, which has one token of context: here its bigram scores it.
        np.testing.assert_allclose(found[1:].mean(), known()["trigram_backoff"][name], rtol=0, atol=1e-12)
        first = score(Ngram(fitted().base, tuple(given[:1])), rows()[name].take(slice(0, 1)))  # type: ignore[arg-type]
        assert found[0] <= first.nll[0]
        np.testing.assert_allclose(score(ngram, rows()[name]).mean, found.mean(), rtol=1e-13)


def test_standard_errors() -> None:
    beta = known()["beta_evidence_unigram_centred"]
    table = Ngram(fitted().base, (replace(fitted().levels[0], concentration=beta),))
    for name in ("validation", "test"):
        found = score(table, rows()[name])
        sums, units = (torch.from_numpy(found.nll), torch.from_numpy(found.weight)), rows()[name].windows.origin
        blocks = sequence_units(units)
        expected = reference()["se_blocks"]["tinyshakespeare"][name]
        np.testing.assert_allclose(clustered_mean(*sums).error, expected["se_row"], rtol=1e-12)
        np.testing.assert_allclose(clustered_mean(*sums, blocks.of_row).error, expected["se_block"], rtol=1e-12)
        assert blocks.name == f"{expected['blocks']} blocks"
    (nll,) = [np.concatenate([n[w > 0] for n, w in token_nll(table, rows()["test"])])]
    for length in (1, 16, 64, 256, 1024):
        unit = torch.arange(len(nll)) // length
        found_error = clustered_mean(torch.from_numpy(nll), torch.ones(len(nll)), unit).error
        expected_error = known()["se_test"]["iid" if length == 1 else f"cluster_{length}"]
        np.testing.assert_allclose(found_error, expected_error, rtol=1e-10)


def test_four_classes() -> None:
    """With vowels, other letters, blanks and all else as tokens each pair occurs, so that the MLE exists."""
    raw = text().encode()
    classes = np.full(256, 3, dtype=np.uint8)
    letters = [ord(one) for one in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    classes[letters], classes[[ord(one) for one in "aeiouAEIOU"]], classes[[ord(" "), ord("\n")]] = 1, 0, 2
    stream = torch.from_numpy(classes[np.frombuffer(raw, np.uint8)])
    parts = split_tokens(np.array([[0, len(raw)]]), "tail", 0.1, 0.1, 0, 64)
    some = {name: TokenRows(stream, rows()[name].windows, 64) for name in parts}
    expected = reference()["four_classes"]
    mle = BigramMle(fit_ngram(some["train"], 4).levels[0].counts)
    count = mle.counts.of_keys(np.arange(16)).reshape(4, 4)
    assert count.tolist() == expected["counts_vowel_letter_blank_other"]
    assert mle.exists
    assert mle.reason is None
    assert mle.num_parameters == 12
    np.testing.assert_allclose(Unigram(mle.counts.of_tokens()).nll, expected["null"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(mle.nll, expected["bigram_mle_train"], rtol=0, atol=1e-12)
    for name in ("validation", "test"):
        np.testing.assert_allclose(score(mle.ngram, some[name]).mean, expected[name], rtol=0, atol=1e-12)
