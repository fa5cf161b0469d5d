"""The objective that training minimises: the mean NLL plus the negative log-prior per observation."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mlefw.distributed import ranks, sharding
from mlefw.distribution.precision import FEW_COLUMNS, full_precision, promote
from mlefw.head.base import Head
from mlefw.loss.base import Loss
from mlefw.loss.plain import Plain
from mlefw.objective.linear_terms import TermsModel
from mlefw.prior.base import Prior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows, weighted_sum

_CELLS = 2**20
"""Number of eta values, and of inputs that are arrays, in a block of rows: eight megabytes in 64 bit."""
_MOST_WIDE = 2**20
"""Number of eta values of a step up to which the likelihood is computed in the widest float."""
_MOST_KEPT = 2**24
"""Number of eta values up to which the eta of all rows is kept."""


class Objective(nn.Module):
    """Σ w·nll / Σ w + (−log prior)(weights) / population, in nats per observation.

    `population` is Σ w of the training rows, set once, so that the prior has the same weight under every batch regime.
    Training may descend another `loss` than the NLL; the value of the objective is always that of the NLL. With
    `replayable` False every step is computed by autograd, and none is recorded. With `sharded` True each process holds
    a share of the weights.
    """

    def __init__(self, model: nn.Module, head: Head, prior: Prior, population: float, loss: Loss | None = None) -> None:
        super().__init__()
        self.model, self.head, self.prior, self.population = model, head, prior, population
        self.loss = loss or Plain()
        inner = getattr(model, "model", model)
        self.has_terms = isinstance(inner, TermsModel) and inner.root.numel() > 0
        self.replayable = True
        self.sharded = False

    def eta(self, x: Tensor, offset: Tensor, standardized: bool = False) -> Tensor:
        """Center + gain · model(x), plus the offset (*batch,) on the first column: (*batch, eta_dim).

        The batch shape is that of the offset: (n,) for rows of one observation, else (n, *positions). An offset of
        shape (*batch, eta_dim) is added to all columns. With
        `standardized`, x has already been standardised, and the inner model of `Standardized` is called.

        Raises:
            ValueError: the model returned another shape than (*batch, eta_dim).
        """
        center, gain = self.head.center[: self.head.eta_dim], self.head.gain[: self.head.eta_dim]
        raw = self._raw(x, offset, standardized)
        if offset.ndim == raw.ndim:
            return center + gain * raw + offset
        if self.head.eta_dim <= FEW_COLUMNS:
            return center + gain * raw + pad(offset.unsqueeze(-1), (0, self.head.eta_dim - 1))
        eta = torch.addcmul(center, gain, raw.to(center.dtype))
        eta[..., 0] += offset
        return eta

    def _raw(self, x: Tensor, offset: Tensor, standardized: bool) -> Tensor:
        raw: Tensor = self.model.model(x) if standardized else self.model(x)  # type: ignore[operator]
        # An offset of each column has the shape of eta itself.
        is_of_columns = offset.ndim == raw.ndim > 1 and offset.shape[-1] == self.head.eta_dim
        batch = offset.shape[:-1] if is_of_columns else offset.shape
        if raw.shape != (*batch, self.head.eta_dim):
            inner = getattr(self.model, "model", self.model)
            expected = (*batch, self.head.eta_dim)
            raise ValueError(f"{type(inner).__name__} returned shape {tuple(raw.shape)}, expected {expected}")
        return raw

    def nll(self, rows: Rows, standardized: bool = False) -> Tensor:
        """NLL of each observation, (n, *positions), unweighted."""
        return self.head.nll(self.eta(rows.x, rows.offset, standardized), rows.y)

    def observations(self, rows: Rows, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All positions of all rows as a batch of one dimension: eta (m, eta_dim), targets (m, *event_shape), weights.

        Args:
            rows: the rows.
            eta: theirs, (n, *positions, eta_dim).
        """
        eta, y, weight = rows.flattened(eta)
        return eta, self.head.as_target(y), weight

    def weights(self) -> Iterator[Tensor]:
        """The tensors that the prior applies to: trainable, with two dimensions or more, each once."""
        return (p for p in self.model.parameters() if p.requires_grad and p.ndim >= 2)

    def penalty(self) -> Tensor:
        """−log prior of all weights, normalising constants included: a scalar in nats.

        Where processes share the weights, all of them have to call it.
        """
        own = self.head.center.new_zeros(())
        if not self.prior.flat:
            own = sum((promote(self.prior(sharding.own(w))) for w in self.weights()), start=own)
        if self.sharded:
            # A prior is a product over entries, so that the parts of the processes add up.
            own = own.detach().clone()
            ranks.all_reduce([own])
        return own + self.model.model.penalty() if self.has_terms else own  # type: ignore[operator, union-attr]

    def descent(self, batch: Batch) -> Tensor:
        """The part that autograd descends: an unbiased estimate, from a batch, of the objective's smooth part."""
        if self.prior.flat and not self.has_terms:
            return self.descent_fit(batch)
        return self.descent_fit(batch) + self.smooth_penalty()

    def descent_fit(self, batch: Batch) -> Tensor:
        """The part of `descent` without the prior: scale / population · Σ w · loss over the batch, a scalar."""
        rows = batch.rows
        if self._is_narrow(rows):
            loss = self._narrow_nll(batch)
        else:
            loss = self.loss(self.head, self.eta(rows.x, rows.offset, batch.standardized), rows.y)
        return batch.scale / self.population * (rows.weight * loss).sum()

    def _is_narrow(self, rows: Rows) -> bool:
        """Whether a step computes the likelihood in 32 bit: 64 bit takes five times as long for very many logits.

        Only of rows with positions; the sums over observations are in 64 bit all the same.
        """
        if not rows.positions or rows.weight.numel() * self.head.eta_dim <= _MOST_WIDE:
            return False
        parts = (p.dtype for p in self.model.parameters())
        return self.head.has_narrow_nll and isinstance(self.loss, Plain) and torch.float64 not in parts

    def _narrow_nll(self, batch: Batch) -> Tensor:
        rows, head = batch.rows, self.head
        raw = self._raw(rows.x, rows.offset, batch.standardized)
        with full_precision(raw.device):
            return head.narrow_nll(torch.addcmul(head.center.float(), head.gain.float(), raw.float()), rows.y)

    def smooth_penalty(self) -> Tensor:
        """The smooth part of the penalty per observation, a scalar; of shared weights the part of this process."""
        parts = (self.prior.smooth_part(sharding.own(w)) for w in self.weights())
        own = sum(parts, start=self.head.center.new_zeros(()))
        own = own + self.model.model.penalty() if self.has_terms else own  # type: ignore[operator, union-attr]
        return own / self.population

    def forward(self, rows: Rows) -> Tensor:
        """The objective on all training rows, a scalar."""
        return (rows.weight * self.nll(rows)).sum() / self.population + self.penalty() / self.population


def not_finite(objective: Objective, rows: Rows, standardized: bool = False, limit: int = 5) -> str:
    """A clause naming the first parameter that is not finite, else rows (from 0) whose NLL is not; "" if none.

    Rows are not looked for where processes share the parameters: they have different ones, of different numbers, and
    each pass through the network takes all processes.
    """
    for name, parameter in objective.named_parameters():
        if not sharding.is_finite(parameter):
            return f"{name} holds a value that is not a finite number"
    if objective.sharded:
        return ""
    device = objective.head.center.device
    found: list[int] = []
    size = rows_at_once(objective.head, rows)
    for number, part in enumerate(rows.blocks(size)):
        with torch.no_grad():
            finite = torch.isfinite(objective.nll(part.to(device), standardized)).reshape(part.num_rows, -1).all(1)
        found += [size * number + index for index in (~finite).nonzero().flatten().tolist()]
        if len(found) > limit:
            break
    shown = ", ".join(map(str, found[:limit])) + (" and more" if len(found) > limit else "")
    return f"the NLL is not finite at position {shown} of the rows" if found else ""


def rows_at_once(head: Head, rows: Rows, most: int = 16384) -> int:
    """Number of rows to work on at a time: fewer for many numbers of eta a row, so that a block fits in the cache.

    Inputs that are arrays are bounded alike, since a network keeps several numbers for each of them.
    """
    cells = head.eta_dim * math.prod(rows.positions)
    if len(rows.input_shape) != 1 or rows.positions:
        cells = max(cells, math.prod(rows.input_shape))
    return max(min(most, _CELLS // max(cells, 1)), 1)


class Evaluation(NamedTuple):
    """A model on rows.

    Attributes:
        eta: eta of each observation, (n, *positions, eta_dim); None where it is too large to be kept.
        nll: NLL of each row, (n,); where rows have positions, the weighted mean over those of the row.
    """

    eta: Tensor | None
    nll: Tensor

    def mean(self, rows: Rows) -> float:
        """The mean NLL of the rows, in nats per observation."""
        weight = rows.row_weight
        return float(weighted_sum(weight, self.nll) / weight.sum())


@torch.no_grad()
def evaluate(objective: Objective, rows: Rows, block: int | None = None) -> Evaluation:
    """Eta and NLL of every row, computed in evaluation mode, block by block; the training mode is restored."""
    keep = rows.num_rows * math.prod(rows.positions) * objective.head.eta_dim <= _MOST_KEPT
    found: Evaluation | None = None
    start = 0
    for part, eta in etas(objective, rows, block=block):
        nll = part.row_means(objective.head.nll(eta, part.y))
        if found is None:
            found = Evaluation(
                rows.new_empty(eta.shape[1:], eta.dtype) if keep else None, rows.new_empty((), nll.dtype)
            )
        here = slice(start, start + part.num_rows)
        found.nll[here] = nll
        if found.eta is not None:
            found.eta[here] = eta
        start = here.stop
    assert found is not None
    return found


@torch.no_grad()
def etas(
    objective: Objective, rows: Rows, known: Tensor | None = None, block: int | None = None
) -> Iterator[tuple[Rows, Tensor]]:
    """Blocks of rows with their eta: a slice of `known` (n, *positions, eta_dim), or else from evaluation mode."""
    start = 0
    for part in rows.blocks(block or rows_at_once(objective.head, rows)):
        if known is None:
            training = objective.training
            objective.eval()
            try:
                eta = objective.eta(part.x, part.offset)
            finally:
                objective.train(training)
        else:
            eta = known[start : start + part.num_rows]
        yield part, eta
        start += part.num_rows


def whole_eta(objective: Objective, rows: Rows) -> Tensor:
    """The eta of all rows, (n, *positions, eta_dim), in evaluation mode, whatever its size."""
    return torch.cat([eta for _, eta in etas(objective, rows)])
