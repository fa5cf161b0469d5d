"""The histogram head: a density in bins, by a softmax over them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from mlefw.distribution.histogram import Histogram
from mlefw.errors import MisfitError, UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start

_MOST = 10_000
"""Most bins: a larger number in a configuration file could exhaust the memory."""

Numbers = np.ndarray


class HistogramHead(Head):
    """A density of any shape, in bins: several modes, gaps, skewness, whatever depends on x.

    Choose it where no named density fits and rows are many: the number is turned into classes, and a network that can
    classify can predict its distribution. By default the bins hold equal shares of the training targets. NLLs are
    comparable to those of other densities, since widths are counted; choose the number of bins by the validation NLL.

    The first and the last bin have no outer edge: there the density falls off exponentially, with the mean distance
    from the inner edge that the training targets of the bin have. With `tails: none` numbers outside the given edges
    are refused. A number on an edge belongs to the bin to its right.

    Domain: y real; with `tails: none` from the first to the last edge.
    Link: probabilities of the bins = softmax(eta).
    NLL: logsumexp(eta) − eta_k + log(width of bin k), k being the bin of y; in a tail log(t) + d / t in place of the
        last term, d being the distance from the inner edge and t its mean.

    Source: Imani & White (2018); the linear model is multinomial logistic regression on the bins.

    Args:
        bins: number of bins, whose edges are quantiles of the training targets; ignored where `edges` are given.
        edges: all edges, in increasing order; with exponential tails the outer two only say how long a tail is where
            the training rows do not.
        tails: `exponential` or `none`, which needs `edges`.
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "binned density, histogram loss; multinomial regression on bins"
    reference: ClassVar = 0
    takes_offset: ClassVar = False
    learns: ClassVar = True
    outside: ClassVar = "head.tails=exponential takes any number"
    convex = True
    support: Constraint = constraints.real

    edges: Tensor
    tail_lengths: Tensor

    def __init__(
        self,
        bins: int = 50,
        edges: Sequence[float] | None = None,
        tails: Literal["exponential", "none"] = "exponential",
        start: Start = "null",
    ) -> None:
        if tails not in ("exponential", "none"):
            raise UsageError(f"head.tails={tails!r}: expected exponential or none")
        if edges is None and tails == "none":
            raise UsageError("head.tails=none refuses numbers outside the edges: expected head.edges=[…] with it")
        if edges is None and not 2 <= bins <= _MOST:
            raise UsageError(f"head.bins={bins}: expected a whole number from 2 to {_MOST}")
        known = np.asarray(range(bins + 1) if edges is None else edges, dtype=np.float64)
        if not (3 <= len(known) <= _MOST + 1 and np.isfinite(known).all() and (np.diff(known) > 0).all()):
            raise UsageError(f"head.edges={list(edges or ())}: expected at least three finite numbers that increase")
        super().__init__(tuple(f"bin_{k}" for k in range(1, len(known))), start=start)
        self.given, self.tails = edges is not None, tails
        self.register_buffer("edges", torch.from_numpy(known))
        self.register_buffer("tail_lengths", torch.from_numpy(np.diff(known)[[0, -1]]))
        if tails == "none":
            self.support = constraints.interval(known[0], known[-1])

    def learn(self, y: Tensor, weight: Tensor) -> None:
        """Take the edges, unless they are given, from quantiles of the training targets, and the mean lengths of tails.

        Raises:
            MisfitError: the targets have too few distinct values for the number of bins.
        """
        values, index = np.unique(y.double().cpu().numpy(), return_inverse=True)
        mass = np.bincount(index, weight.double().cpu().numpy(), len(values))
        values, mass = values[mass > 0], mass[mass > 0]
        if not self.given:
            self.edges.copy_(torch.from_numpy(quantile_edges(values, mass, self.eta_dim)))
        edges = self.edges.cpu().numpy()
        for side, (inside, distance) in enumerate(
            ((values < edges[1], edges[1] - values), (values >= edges[-2], values - edges[-2]))
        ):
            total = float(mass[inside] @ distance[inside])
            if total > 0:
                self.tail_lengths[side] = total / float(mass[inside].sum())

    def distribution(self, eta: Tensor) -> Histogram:
        """The histogram for a complete eta."""
        return Histogram(eta, self.edges, self.tail_lengths if self.tails == "exponential" else None)

    def bin_of(self, y: Tensor) -> Tensor:
        """The bin of each target, int64."""
        return torch.bucketize(y.contiguous(), self.edges[1:-1], right=True)

    def information(self, eta: Tensor) -> Tensor:
        """The variance diag(p) − p pᵀ: the link is canonical, so the observed information is the expected one."""
        p = eta.softmax(-1)
        return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """−2 log of the probability of the bin of y, (*batch,): a perfect prediction of the bin has 0."""
        return -2 * eta.log_softmax(-1).gather(-1, self.bin_of(y).unsqueeze(-1)).squeeze(-1)


def quantile_edges(values: Numbers, mass: Numbers, bins: int) -> Numbers:
    """Edges between which the masses of values are as equal as ties allow, (bins + 1,), each bin with some value.

    Inner edges are values. Where several quantiles are one value, the bins of the largest mass are halved instead.

    Args:
        values: distinct values in increasing order, (m,).
        mass: their masses, (m,).
        bins: number of bins.

    Raises:
        MisfitError: there are no more values than bins.
    """
    if len(values) <= bins:
        raise MisfitError(
            f"head.bins={bins}: the training target has {len(values)} distinct values\n"
            "  expected: more distinct values than bins; for counts a head of counts, such as head=poisson"
        )
    below = np.r_[0.0, mass.cumsum()]
    # An inner edge at values[j] leaves below[j] of the mass below it. Both outer bins keep a length above 0.
    found = np.searchsorted(below, below[-1] * np.arange(1, bins) / bins, side="right") - 1
    cuts = [0, *np.unique(found.clip(1, len(values) - 2)).tolist(), len(values) - 1]
    while len(cuts) < bins + 1:
        share = [below[b] - below[a] if b - a > 1 else 0.0 for a, b in pairwise(cuts)]
        k = int(np.argmax(share))
        middle = np.searchsorted(below, (below[cuts[k]] + below[cuts[k + 1]]) / 2)
        cuts.insert(k + 1, int(np.clip(middle, cuts[k] + 1, cuts[k + 1] - 1)))
    return np.asarray(values[cuts])
