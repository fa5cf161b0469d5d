"""Entropy rate and divergences beside long-hand sums and simulation; excess NLL is the divergence; bits per byte."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mlefw.cli import run as run_program
from mlefw.experiment.language import Language, predicted_divergence, tables_of, windows_of
from mlefw.objective.objective import evaluate
from mlefw.simulation.markov import MarkovSource, as_rows
from mlefw.simulation.next_token import Training, over_units

CHAIN = MarkovSource.drawn(3, np.random.default_rng(5))


def longhand(chain: MarkovSource, table, order: int) -> float:
    """Σ over contexts of their stationary probability times the KL of the row of a table, in plain loops."""
    size, found = chain.num_tokens, 0.0
    power = np.linalg.matrix_power(chain.transition, 500)[0]
    contexts = [()]
    for _ in range(max(order, 1)):
        contexts = [(*one, token) for one in contexts for token in range(size)]
    for context in contexts:
        share = power[context[0]]
        for before, after in pairwise(context):
            share *= chain.transition[before, after]
        for token in range(size):
            truth = chain.transition[context[-1], token]
            found += share * truth * np.log(truth / table(context, token))
    return float(found)


def test_the_entropy_rate_and_the_stationary_distribution() -> None:
    assert CHAIN.stationary @ CHAIN.transition == pytest.approx(CHAIN.stationary, abs=1e-14)
    assert CHAIN.stationary == pytest.approx(np.linalg.matrix_power(CHAIN.transition, 500)[0], abs=1e-12)
    two = MarkovSource(np.array([[0.9, 0.1], [0.4, 0.6]]))
    # π = (0.8, 0.2) by detailed balance, and binary entropies of its rows.
    h = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.9, 0.4)]
    assert two.entropy_rate == pytest.approx(0.8 * h[0] + 0.2 * h[1], abs=1e-14)


def test_divergences_of_tables_are_sums_over_contexts() -> None:
    text = CHAIN.chains(1, 400, np.random.default_rng(0))[0]
    counts = np.zeros((3, 3, 3))
    for one in zip(text[:-2], text[1:-1], text[2:], strict=True):
        counts[one] += 1
    tables = tables_of(windows_of(text, 0, len(text), 64), 3)
    beta, gamma = (level.concentration for level in tables["trigram"].levels)
    pairs = np.bincount(text[:-1] * 3 + text[1:], minlength=9).reshape(3, 3)
    # Of each pair the second token is scored: the base has the tokens from the second on.
    base = (np.bincount(text[1:], minlength=3) + 0.5) / (len(text) - 1 + 1.5)

    def bigram(context, token) -> float:
        return (pairs[context[-1], token] + beta * base[token]) / (pairs[context[-1]].sum() + beta)

    def trigram(context, token) -> float:
        row = counts[context[-2], context[-1]]
        return (row[token] + gamma * bigram(context, token)) / (row.sum() + gamma)

    each = {"unigram": lambda context, token: base[token], "bigram": bigram, "trigram": trigram}
    for order, (name, table) in enumerate(each.items()):
        assert CHAIN.divergence(tables[name], order) == pytest.approx(longhand(CHAIN, table, order), abs=1e-12), name


def test_excess_nll_is_the_divergence_and_falls_as_theory_says() -> None:
    found = Language([5_000], [2_000, 20_000], num_tokens=4, replicates=40, num_steps=0).run()
    values = found.values
    assert abs(values["truth_nll"] - values["entropy_rate"]) < 4 * values["truth_nll_se"]
    for size in (2_000, 20_000):
        for name in ("unigram", "bigram", "trigram"):
            off = values[f"{name}_excess_{size}"] - values[f"{name}_kl_{size}"]
            assert abs(off) < 4 * values[f"{name}_excess_se_{size}"] + 1e-12, (name, size)
    predicted = predicted_divergence(4, 1, 20_000)
    assert predicted == pytest.approx(4 * 3 / 40_000)
    assert abs(values["bigram_mean_20000"] - predicted) < 4 * values["bigram_mean_se_20000"] + 0.1 * predicted
    # 2.1754 nats under the trigram of all training text, by counts in numpy: fewer characters tell less.
    assert 2.1754 / np.log(2) < values["trigram_bits_5000"] < values["unigram_bits_5000"]
    assert {grid.columns[0] for grid in found.tables} == {"characters", "training tokens, model", "training tokens"}


def test_a_transformer_learns_the_chain_and_leaves_the_random_state_alone() -> None:
    text = CHAIN.chains(1, 4_000, np.random.default_rng(1))[0]
    train, held = windows_of(text, 0, 3_500, 8), windows_of(text, 3_500, 4_000, 8)
    fresh = as_rows(CHAIN.chains(40, 200, np.random.default_rng(2)), 8)
    before = torch.random.get_rng_state()
    nets = [Training(60, width=16, layers=1, heads=2).fit(train, held, 3, seed=3) for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    excess, error = over_units(evaluate(nets[0], fresh).nll - CHAIN.row_nll(fresh), fresh)
    unigram = CHAIN.divergence(tables_of(train, 3)["unigram"], 0)
    assert -4 * error < excess < 0.5 * unigram


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["train", "experiment=language", "experiment.sizes=[100]"]) == 2
    assert "at least 20 windows" in capsys.readouterr().err
    assert run_program(["train", "experiment=language", "experiment.num_tokens=1"]) == 2
    assert "num_tokens from 2 to 30" in capsys.readouterr().err
