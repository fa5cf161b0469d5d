"""A head with the inputs that conformance checks try."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.testing.expectation import Nodes, nodes_at

_LEVELS = (0.12, 0.31, 0.66, 0.88)
"""Quantiles at which the y of rows are taken, without the median, where a density may have a kink."""


@dataclass(frozen=True)
class HeadCase:
    """A head with the inputs that conformance checks try.

    Attributes:
        head: the head, in float64.
        etas: complete etas, each (columns,).
        tolerance: tolerance of the integral of the density; other tolerances are multiples of it.
        near: plausible values of y, (k,), for a distribution without draws and moments.
        knots: maps an eta to the y at which second derivatives of the density jump, (k,).
        panel: absolute error of an integral over one panel that is allowed in addition to rounding.
        score: tolerance of mean scores, in standard deviations; by default 100 · tolerance.
    """

    head: Head
    etas: Sequence[Tensor]
    tolerance: float
    near: Tensor | None = None
    knots: Callable[[Tensor], Tensor] | None = None
    panel: float = 0.0
    score: float | None = None

    @cached_property
    def nodes(self) -> list[Nodes]:
        """Nodes of the density at each eta; empty for a head of several targets."""
        if self.head.event_shape:
            return []
        return [nodes_at(self.head, eta, self.near, self.knots and self.knots(eta), self.panel) for eta in self.etas]

    @property
    def resolved(self) -> list[Nodes]:
        """The nodes whose total mass is known."""
        return [nodes for nodes in self.nodes if nodes.left_out <= self.tolerance]

    @property
    def whole(self) -> list[Nodes]:
        """The nodes whose total mass is one, which excludes densities with additional point masses."""
        return [nodes for nodes in self.resolved if abs(nodes.total - 1) <= max(self.tolerance, 1e-3)]

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Complete eta (n, columns) and y (n, *event_shape), with low and high values at every eta."""
        if self.head.event_shape:
            eta = torch.stack([eta for eta in self.etas for _ in _LEVELS])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return eta, self.head.distribution(eta).sample()
        eta = torch.stack([nodes.eta for nodes in self.nodes for _ in _LEVELS])
        return eta, torch.stack([nodes.at(level) for nodes in self.nodes for level in _LEVELS])

    @property
    def predicted(self) -> Tensor:
        """The predicted columns of the eta of `rows`, (n, eta_dim)."""
        return self.rows[0][:, : self.head.eta_dim]


def plausible_etas(head: Head, count: int = 4) -> list[Tensor]:
    """Complete etas, each (columns,), about the null model in units of the gain; the first is the null model."""
    generator = torch.Generator().manual_seed(0)
    raw = 0.7 * torch.randn(count, head.eta_dim + head.shared_dim, dtype=torch.float64, generator=generator)
    raw[0] = 0
    shared = torch.cat([torch.zeros(head.eta_dim), head.shared.detach().cpu()]).double()
    return list((head.center + head.gain * (raw + shared)).detach().cpu().double())


def has_kinks(head: Head) -> bool:
    """Whether a density has kinks, as its head overrides `rounded_nll`."""
    return type(head).rounded_nll is not Head.rounded_nll
