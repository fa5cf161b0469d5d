"""How many bits a byte of text costs under n-grams and a transformer, and how far they are from a known source."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.ngram.ngram import Ngram, fit_ngram
from mlefw.baseline.ngram.scores import score
from mlefw.data.shakespeare import Shakespeare
from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.objective.objective import evaluate
from mlefw.plot import language
from mlefw.report.findings import Findings, Grid
from mlefw.rows.token_stream import TokenStream
from mlefw.rows.tokens import TokenRows
from mlefw.schema.tokens import TokenSchema
from mlefw.simulation.markov import MarkovSource, as_rows
from mlefw.simulation.next_token import Training, over_units

NAMES = ("unigram", "bigram", "trigram", "transformer")
"""Models of the next token, from no context to the most; a table's place is the number of tokens it reads."""

_HELD = 0.1
"""Share of the training tokens, its end, by which the weights of a transformer are chosen."""

_MOST_HELD = 20_000
_EPOCHS, _LEAST_STEPS = 5, 200
_TESTED = (100, 4_000)
"""Independent chains of the source, and their length, on which excess NLL is measured."""

Values = dict[str, float | None]
Line = dict[str, tuple[float, float]]
"""By model a mean NLL, or excess of it, and its standard error."""


class Language(Experiment):
    """Models of the next token over training size: on Shakespeare in bits per byte, on a Markov chain as KL divergence.

    Args:
        sizes: numbers of characters of Shakespeare that train; the last tenth of the text tests.
        source_sizes: numbers of tokens of the chain that train.
        num_tokens: number of different tokens of the chain, K.
        replicates: number of training texts of the chain over which the divergence of tables is averaged.
        length: number of tokens of a window of the transformer.
        num_steps: most training steps of a transformer, which has five epochs, but no fewer than 200 steps; 0 to
            leave it out.
        seed: seed of the chain, of its texts, and of the transformers.
    """

    def __init__(
        self,
        sizes: list[int] | None = None,
        source_sizes: list[int] | None = None,
        num_tokens: int = 6,
        replicates: int = 30,
        length: int = 64,
        num_steps: int = 1000,
        seed: int = 0,
    ) -> None:
        self.sizes = sorted(sizes or [3_000, 30_000, 300_000, 1_000_000])
        self.source_sizes = sorted(source_sizes or [1_500, 5_000, 15_000, 50_000, 150_000])
        self.num_tokens, self.replicates, self.length, self.seed = num_tokens, replicates, length, seed
        self.num_steps = num_steps
        if length < 2 or replicates < 2 or num_steps < 0 or not 2 <= num_tokens <= 30:
            raise UsageError(
                "experiment: expected length >= 2, replicates >= 2, num_steps >= 0, and num_tokens from 2 to 30"
            )
        if min(self.sizes[0], self.source_sizes[0]) < 20 * (length + 1):
            raise UsageError(f"experiment: expected sizes of at least 20 windows, {20 * (length + 1)} tokens")

    def run(self) -> Findings:
        """Run both parts."""
        values: Values = {}
        text, bits = self._text(values)
        chain = MarkovSource.drawn(self.num_tokens, np.random.default_rng(self.seed))
        tables, excess, mean = self._source(chain, values)
        predicted = [predicted_divergence(self.num_tokens, 1, size) for size in self.source_sizes]
        best = min(bits[-1], key=lambda name: bits[-1][name][0])
        largest = self.source_sizes[-1]
        verdict = (
            f"Of {self.sizes[-1]:,} characters or fewer the {best} learns most: {bits[-1][best][0]:.3f} bits per byte "
            f"on text that it has not seen, a unigram {bits[-1]['unigram'][0]:.3f}. On the chain the excess NLL is the "
            f"KL divergence: the table of pairs is {values[f'bigram_mean_{largest}']:.2g} ± "
            f"{values[f'bigram_mean_se_{largest}']:.1g} nats from the truth after {largest:,} tokens, "
            f"K (K − 1) / 2n is {predicted[-1]:.2g}; what a unigram cannot say does not fall at all."
        )
        picture = language.picture((self.sizes, bits), (self.source_sizes, excess, mean, predicted))
        title = "Likelihood of the next token, and the divergence from a known source"
        return Findings(title, [text, *tables], verdict, values, {"language": picture})

    @property
    def names(self) -> tuple[str, ...]:
        """The models that take part."""
        return NAMES if self.num_steps else NAMES[:-1]

    def _text(self, values: Values) -> tuple[Grid, list[Line]]:
        """A line for each training size: bits per byte of each model on the last tenth of the text."""
        documents = Shakespeare().load()
        schema = TokenSchema.learn(documents, "chars", self.length)
        tokens = schema.code(documents).tokens
        num_train = round(0.9 * len(tokens))
        held_out = windows_of(tokens, num_train, len(tokens), self.length)
        rows, lines = list[list[Any]](), list[Line]()
        self.sizes = sorted({min(size, num_train) for size in self.sizes})
        for size in self.sizes:
            # The characters just before the tested ones, each of which is a byte.
            nll = self._row_nll(tokens, num_train - size, num_train, held_out, schema.num_tokens)[0]
            lines.append({name: _bits(*over_units(one, held_out)) for name, one in nll.items()})
            rows.append([size, *(part for pair in lines[-1].values() for part in pair)])
            for name, (mean, error) in lines[-1].items():
                values |= {f"{name}_bits_{size}": mean, f"{name}_bits_se_{size}": error}
        columns = ["characters", *(part for name in self.names for part in (name, "± se"))]
        title = f"Shakespeare: bits per byte of {held_out.population:,.0f} characters that follow the training text"
        return Grid(title, columns, rows), lines

    def _source(self, chain: MarkovSource, values: Values) -> tuple[list[Grid], list[Line], list[Line]]:
        """For each training size the excess NLL of each model on held-out chains, and the mean divergence of tables."""
        random = np.random.default_rng((self.seed, 1))
        texts = chain.chains(self.replicates, self.source_sizes[-1], random)
        held_out = as_rows(chain.chains(*_TESTED, random), self.length)
        truth = chain.row_nll(held_out)
        measured, error = over_units(truth, held_out)
        values |= {"entropy_rate": chain.entropy_rate, "truth_nll": measured, "truth_nll_se": error}
        excess, mean = list[Line](), list[Line]()
        rows, averages = list[list[Any]](), list[list[Any]]()
        for size in self.source_sizes:
            nll, tables = self._row_nll(texts[0], 0, size, held_out, chain.num_tokens)
            excess.append({name: over_units(one - truth, held_out) for name, one in nll.items()})
            exact = {name: chain.divergence(table, table.order) for name, table in tables.items()}
            mean.append(_averages(chain, texts[:, :size]))
            for name, (value, spread) in excess[-1].items():
                rows.append([f"{size} {name}", value, spread, exact.get(name)])
                values |= {f"{name}_excess_{size}": value, f"{name}_excess_se_{size}": spread}
            for name, (value, spread) in mean[-1].items():
                values |= {f"{name}_kl_{size}": exact[name], f"{name}_mean_{size}": value}
                values |= {f"{name}_mean_se_{size}": spread}
            pairs = [part for name in NAMES[:3] for part in mean[-1][name]]
            expected = [predicted_divergence(chain.num_tokens, order, size) for order in (1, 2)]
            averages.append([size, *pairs[:2], *pairs[2:4], expected[0], *pairs[4:], expected[1]])
        title = (
            f"A chain of {chain.num_tokens} tokens, entropy rate {chain.entropy_rate:.5f} nats "
            f"(measured {measured:.5f} ± {error:.5f}): NLL above that of the truth on {math.prod(_TESTED):,} held-out "
            "tokens, nats"
        )
        first = Grid(title, ["training tokens, model", "excess NLL", "± se", "its exact KL"], rows)
        columns = ["training tokens", "unigram", "± se", "bigram", "± se", "K (K−1) / 2n"]
        columns += ["trigram", "± se", "K² (K−1) / 2n, MLE"]
        second = f"Exact KL of tables, nats, mean over {self.replicates} training texts"
        return [first, Grid(second, columns, averages)], excess, mean

    def _row_nll(
        self, tokens: np.ndarray, start: int, stop: int, held_out: TokenRows, num_tokens: int
    ) -> tuple[dict[str, Tensor], dict[str, Ngram]]:
        """The mean NLL of each held-out row by model, in nats per token, trained on tokens[start:stop]; the tables."""
        tables = tables_of(windows_of(tokens, start, stop, self.length), num_tokens)
        found = {}
        for name, table in tables.items():
            total = score(table, held_out)
            found[name] = torch.from_numpy(total.nll / np.maximum(total.weight, 1))
        if self.num_steps:
            cut = stop - min(_MOST_HELD, round(_HELD * (stop - start)))
            train, held = (windows_of(tokens, *span, self.length) for span in ((start, cut), (cut, stop)))
            steps = max(_LEAST_STEPS, _EPOCHS * train.num_per_epoch // Training.batch_size)
            training = Training(min(self.num_steps, steps))
            found[NAMES[-1]] = evaluate(training.fit(train, held, num_tokens, self.seed), held_out).nll
        return found, tables


def windows_of(tokens: np.ndarray, start: int, stop: int, length: int) -> TokenRows:
    """The windows of tokens[start:stop]; each epoch of a training draws others."""
    piece = np.array([[start, stop]], dtype=np.int64)
    return TokenStream(np.ascontiguousarray(tokens), piece).rows(piece, length).moving(torch.from_numpy(piece))


def tables_of(rows: TokenRows, num_tokens: int) -> dict[str, Ngram]:
    """The tables of the next token by none, one and two tokens before it, under priors of largest evidence."""
    ngram = fit_ngram(rows, num_tokens, 2)
    return {name: Ngram(ngram.base, ngram.levels[:order]) for order, name in enumerate(NAMES[:3])}


def predicted_divergence(num_tokens: int, order: int, size: int) -> float:
    """Expected KL divergence p / 2n of a table with p = K^order (K − 1) free probabilities that all are positive."""
    return num_tokens**order * (num_tokens - 1) / (2 * size)


def _averages(chain: MarkovSource, texts: np.ndarray) -> Line:
    """The mean divergence of tables fitted to each of the texts (R, n), and its standard error."""
    found: dict[str, list[float]] = {}
    for text in texts:
        for name, table in tables_of(windows_of(text, 0, len(text), len(text)), chain.num_tokens).items():
            found.setdefault(name, []).append(chain.divergence(table, table.order))
    return {
        name: (float(np.mean(each)), float(np.std(each, ddof=1)) / math.sqrt(len(each))) for name, each in found.items()
    }


def _bits(mean: float, error: float) -> tuple[float, float]:
    return mean / math.log(2), error / math.log(2)
