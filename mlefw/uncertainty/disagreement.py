"""How much of the uncertainty of a mixture its members agree on: its entropy, split in two, in nats."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution
from torch.distributions import Categorical as TorchCategorical

from mlefw.distribution import quantile
from mlefw.distribution.cdf import is_discrete
from mlefw.distribution.censored import Censored
from mlefw.distribution.trials import GivenTrials
from mlefw.uncertainty.pool import SideBySide, log_probabilities

_LEVELS = (0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
"""Probabilities in either tail at whose quantiles, of every member, the line is cut for integration."""
_NUM_NODES = 10
_CELLS = 2**22
"""Numbers held at once."""
_COUNTS = 64
"""Counts summed over at once."""


class Uncertainty(NamedTuple):
    """Of the mixture of the members' predictive distributions of each row, nats, each (n,).

    Attributes:
        entropy: of the mixture; of a density it may be negative, and depends on the unit of y.
        shared: mean entropy of the members: what they agree cannot be known better.
        disagreement: entropy less shared: the mutual information of y and the member, from 0 to the entropy of the
            weights, which is log(number of members) where they are equal.
    """

    entropy: Tensor
    shared: Tensor
    disagreement: Tensor


@torch.no_grad()
def split(members: Sequence[Distribution], log_weight: Tensor) -> Uncertainty:
    """The uncertainty of one target under members of one batch shape (n,), with log weights (number of members,).

    Exact sums over classes and counts; for densities Gauss-Legendre quadrature between the quantiles of all members,
    with an error below 1e-9 for smooth densities. Of a number between bounds it is that of the number itself, of
    successes that of the count out of ten trials, whatever the number of trials of a row.
    """
    if isinstance(members[0], GivenTrials):
        return split([member.usual for member in members], log_weight)  # type: ignore[attr-defined]
    if isinstance(members[0], Censored):
        return split([member.latent for member in members], log_weight)  # type: ignore[attr-defined]
    if isinstance(members[0], Bernoulli | TorchCategorical):
        return _together(*_terms(torch.stack([log_probabilities(member) for member in members], -2), log_weight, 1))
    return (_over_counts if is_discrete(members[0]) else _over_line)(members, log_weight)


def _terms(log_prob: Tensor, log_weight: Tensor, measure: Tensor | float) -> tuple[Tensor, Tensor]:
    """Mean entropy of the members and their mean divergence from the mixture, summed over the last dimension.

    Each is (n,), of log-densities (n, M, size) log weights of the members (M,) and a measure of the places (n, size).
    """
    mixed = torch.logsumexp(log_prob + log_weight.unsqueeze(-1), -2, keepdim=True)
    mass = log_prob.exp()
    weight = log_weight.exp().to(mass)
    # Where there is no mass a logarithm may be infinite.
    surprise = weight @ torch.where(mass > 0, -mass * log_prob, 0.0)
    divergence = weight @ torch.where(mass > 0, mass * (log_prob - mixed), 0.0)
    return (measure * surprise).sum(-1), (measure * divergence).sum(-1)


def _together(shared: Tensor, disagreement: Tensor) -> Uncertainty:
    disagreement = disagreement.clamp(min=0)
    return Uncertainty(shared + disagreement, shared, disagreement)


def _over_counts(members: Sequence[Distribution], log_weight: Tensor) -> Uncertainty:
    side = SideBySide(members)
    first = quantile.quantile(side, 1e-15).amin(-1)
    last = quantile.quantile(side, 1 - 1e-13).amax(-1)
    shared, divergence = torch.zeros_like(first), torch.zeros_like(first)
    for start in range(0, int((last - first).max()) + 1 if len(first) else 0, _COUNTS):
        k = first.unsqueeze(-1) + torch.arange(start, start + _COUNTS, dtype=first.dtype)
        # Counts come first, so that they broadcast against the rows.
        log_prob = side.log_prob(k.T.unsqueeze(-1)).permute(1, 2, 0)
        parts = _terms(log_prob, log_weight, (k <= last.unsqueeze(-1)).to(log_prob.dtype))
        shared, divergence = shared + parts[0], divergence + parts[1]
    return _together(shared, divergence)


def _over_line(members: Sequence[Distribution], log_weight: Tensor) -> Uncertainty:
    side = SideBySide(members)
    levels = (*_LEVELS, 0.5, *(1 - p for p in _LEVELS))
    edges = torch.stack([quantile.quantile(side, p) for p in levels], -1).flatten(-2).double().sort(-1).values
    node, weight = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(_NUM_NODES))
    shared, divergence = torch.zeros_like(edges[..., 0]), torch.zeros_like(edges[..., 0])
    at_once = max(1, _CELLS // (len(edges) * len(members) * _NUM_NODES + 1))
    for start in range(0, edges.shape[-1] - 1, at_once):
        cut = edges[..., start : start + at_once + 1]
        half = (cut.diff(dim=-1) / 2).unsqueeze(-1)
        y = ((cut[..., :-1] + cut[..., 1:]) / 2).unsqueeze(-1) + half * node
        log_prob = side.log_prob(y.flatten(-2).T.unsqueeze(-1)).permute(1, 2, 0)
        parts = _terms(log_prob, log_weight, (half * weight).flatten(-2))
        shared, divergence = shared + parts[0], divergence + parts[1]
    return _together(shared, divergence)
