"""A transformer for the next token, trained for a fixed number of steps; the NLL of models on held-out windows."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from mlefw.baseline.ngram.unigram import Unigram
from mlefw.head.categorical import CategoricalHead
from mlefw.model.transformer import Transformer
from mlefw.objective.objective import Objective, evaluate
from mlefw.prior.none import NoPrior
from mlefw.rows.clustered import clustered_mean, sequence_units
from mlefw.rows.rows import Rows
from mlefw.rows.scored_tokens import scored_counts
from mlefw.rows.shape import RowShape
from mlefw.rows.tensor_inputs import Tokens
from mlefw.rows.tokens import TokenRows
from mlefw.scheduler.warmup_cosine import WarmupCosine

_CHECKS = 10
"""Evaluations of held-out rows during a training, of which the best weights are kept."""


@dataclass(frozen=True)
class Training:
    """How a transformer is trained: by Adam on windows of a moving phase, with warm-up, cosine and clipping.

    Attributes:
        num_steps: number of steps.
        batch_size: windows of a step.
        width: size of the embedding.
        layers: number of blocks.
        heads: attention heads of each.
        lr: largest learning rate.
        warmup: steps of warm-up.
    """

    num_steps: int
    batch_size: int = 16
    width: int = 64
    layers: int = 2
    heads: int = 4
    lr: float = 4e-3
    warmup: int = 50

    def fit(self, rows: TokenRows, held: TokenRows, num_tokens: int, seed: int) -> Objective:
        """The transformer with the least NLL on `held` of those that training on `rows` passes, the null model first.

        Args:
            rows: training rows, of which each epoch draws other windows.
            held: rows of equal length by which the weights are chosen.
            num_tokens: number of different tokens.
            seed: of initial weights and of the order of windows.
        """
        shape = RowShape((rows.length,), (rows.length,), num_tokens, is_sequential=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Transformer(num_tokens, rows.length, (rows.length,), num_tokens, self.width, self.layers, self.heads)
        head = CategoricalHead(num_tokens)
        head.center.copy_(torch.from_numpy(Unigram(scored_counts(rows, num_tokens)).share).log())
        objective = Objective(Tokens(net, shape), head, NoPrior(), rows.population)
        optimizer = torch.optim.Adam(objective.parameters(), lr=self.lr)
        scheduler = WarmupCosine(optimizer, self.num_steps, self.warmup)
        least, best = evaluate(objective, held).mean(held), deepcopy(objective.state_dict())
        generator = torch.Generator().manual_seed(seed)
        for step, batch in zip(range(1, self.num_steps + 1), _batches(rows, self.batch_size, generator), strict=False):
            optimizer.zero_grad()
            eta = objective.eta(batch.x, batch.offset)
            loss = (batch.weight * head.nll(eta, batch.y)).sum() / batch.weight.sum()
            loss.backward()
            clip_grad_norm_(objective.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            if step % max(1, self.num_steps // _CHECKS) == 0 or step == self.num_steps:
                value = evaluate(objective, held).mean(held)
                if value < least:
                    least, best = value, deepcopy(objective.state_dict())
        objective.load_state_dict(best)
        return objective.eval()


def _batches(rows: TokenRows, size: int, generator: torch.Generator) -> Iterator[Rows]:
    """Windows in random order, epoch by epoch, without end; those that score nothing are left out."""
    while True:
        epoch = rows.of_epoch(generator)
        index = torch.randperm(epoch.num_rows, generator=generator)
        index = index[epoch.row_weight[index] > 0]
        for part in index.split(size):
            yield epoch.take(part)


def over_units(nll: Tensor, rows: TokenRows) -> tuple[float, float]:
    """The mean over tokens of values of rows (n,), and its standard error over documents or blocks of windows."""
    weight = rows.row_weight
    mean, error, _ = clustered_mean(weight * nll, weight, sequence_units(rows.windows.origin).of_row)
    return mean, error
