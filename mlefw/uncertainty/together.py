"""Several trained objectives as one: its eta is theirs side by side, and it predicts the mixture of what they do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mlefw.distribution.conformal import Conformal, density_of
from mlefw.distribution.joint import Joint
from mlefw.distribution.trials import GivenTrials
from mlefw.head.base import Head
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.uncertainty.disagreement import Uncertainty, split
from mlefw.uncertainty.pool import pooled, union

_BLOCK = 512
"""Rows whose uncertainty is split at once: their densities are taken at some thousand places."""


class PooledHead(Head):
    """Maps the complete etas of several heads, one after the other, to the mixture of their distributions.

    For evaluation, not for training.

    Args:
        heads: of one event shape.
        log_weight: logarithms of the weights of their distributions, (number of heads,).
    """

    def __init__(self, heads: Sequence[Head], log_weight: Tensor) -> None:
        names = [
            f"{name}@{index}" for index, head in enumerate(heads) for name in (*head.eta_names, *head.shared_names)
        ]
        super().__init__(tuple(names))
        # A tuple: what the members have learnt is theirs.
        self.heads, self.log_weight = tuple(heads), log_weight
        self.event_shape = heads[0].event_shape
        self.support = union([head.support for head in heads])
        self.num_classes: int | None = getattr(heads[0], "num_classes", None)
        self.sizes = [head.eta_dim + head.shared_dim for head in heads]

    def members(self, eta: Tensor) -> list[Distribution]:
        """The distribution of each member, for a complete eta."""
        return [head.distribution(part) for head, part in zip(self.heads, eta.split(self.sizes, -1), strict=True)]

    def distribution(self, eta: Tensor) -> Distribution:
        """The mixture for a complete eta."""
        return _mixed(self.members(eta), self.log_weight)

    @torch.no_grad()
    def uncertainty(self, eta: Tensor) -> list[Uncertainty]:
        """How much of the uncertainty of each target the members agree on, for a complete eta (n, columns)."""
        if not len(eta):
            none = eta.new_zeros(0)
            return [Uncertainty(none, none, none)] * (self.event_shape.numel() or 1)
        parts = [_of_targets(self.members(block), self.log_weight) for block in eta.split(_BLOCK)]
        return [
            Uncertainty(*(torch.cat(column) for column in zip(*target, strict=True)))
            for target in zip(*parts, strict=True)
        ]


def _mixed(members: Sequence[Distribution], log_weight: Tensor) -> Distribution:
    """The mixture; of members with conformal intervals, each by rows that it alone held out, with those of all."""
    if all(isinstance(member, GivenTrials) for member in members):
        of = lambda trials: _mixed([m.given(trials) for m in members], log_weight)  # type: ignore[attr-defined]  # noqa: E731
        return GivenTrials(of, members[0].batch_shape)
    mixed = pooled([density_of(member) for member in members], log_weight)
    if not isinstance(members[0], Conformal):
        return mixed
    parts = [part for member in members if isinstance(member, Conformal) for part in member.parts]
    return Conformal(mixed, parts, members[0].discrete)


def _of_targets(members: Sequence[Distribution], log_weight: Tensor) -> list[Uncertainty]:
    if not isinstance(members[0], Joint):
        return [split([density_of(member) for member in members], log_weight)]
    columns = zip(*(member.marginals for member in members), strict=True)  # type: ignore[attr-defined]
    return [split(column, log_weight) for column in columns]


class _PooledModel(nn.Module):
    """The complete etas of several objectives, side by side."""

    def __init__(self, objectives: Sequence[Objective], columns: Sequence[slice]) -> None:
        super().__init__()
        self.objectives, self.columns = tuple(objectives), tuple(columns)

    def forward(self, x: Tensor) -> Tensor:
        """(n, columns of all), for x that holds each coding of the features with its offset behind them."""
        etas = []
        for objective, columns in zip(self.objectives, self.columns, strict=True):
            part = x[:, columns]
            etas.append(objective.head.complete(objective.eta(part[:, :-1], part[:, -1])))
        return torch.cat(etas, -1)


def together(objectives: Sequence[Objective], columns: Sequence[slice], log_weight: Tensor) -> Objective:
    """The mixture of trained objectives as an objective in evaluation mode, without a prior and without offsets.

    Args:
        objectives: on the CPU.
        columns: of x for each of them: its features, and behind them its offset.
        log_weight: logarithms of the weights of their distributions, (number of objectives,).
    """
    model = _PooledModel([objective.eval() for objective in objectives], columns)
    head = PooledHead([objective.head for objective in objectives], log_weight)
    return Objective(model, head, NoPrior(), objectives[0].population).eval()
