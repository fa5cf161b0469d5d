"""A head and what it is tried with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.testing.expectation import Nodes, nodes_at

_LEVELS = (0.12, 0.31, 0.66, 0.88)
"""Where in its distribution the y of a row lies: not at the middle, where a density may have a kink."""


@dataclass(frozen=True)
class HeadCase:
    """A head and what it is tried with.

    Attributes:
        head: in 64 bit.
        etas: complete ones, each (columns,).
        tolerance: of what the density integrates to; every other tolerance is a multiple of it.
        near: some plausible y, for a distribution that can neither be sampled nor has moments.
        knots: from an eta to the y where second derivatives of the density jump, (k,).
        panel: error of an integral over one panel that is allowed beside rounding.
        score: tolerance of mean scores, in standard deviations; by default 100 times that of the total.
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
        """One for each eta; none of a head of several targets."""
        if self.head.event_shape:
            return []
        return [nodes_at(self.head, eta, self.near, self.knots and self.knots(eta), self.panel) for eta in self.etas]

    @property
    def resolved(self) -> list[Nodes]:
        """Those whose total is known."""
        return [nodes for nodes in self.nodes if nodes.left_out <= self.tolerance]

    @property
    def whole(self) -> list[Nodes]:
        """Those that have all of the mass: not those of a density beside which single points have mass."""
        return [nodes for nodes in self.resolved if abs(nodes.total - 1) <= max(self.tolerance, 1e-3)]

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Complete eta (n, columns) and y (n, *event_shape): low and high values at every eta."""
        if self.head.event_shape:
            eta = torch.stack([eta for eta in self.etas for _ in _LEVELS])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return eta, self.head.distribution(eta).sample()
        eta = torch.stack([nodes.eta for nodes in self.nodes for _ in _LEVELS])
        return eta, torch.stack([nodes.at(level) for nodes in self.nodes for level in _LEVELS])

    @property
    def predicted(self) -> Tensor:
        """The part of the rows' eta that a network predicts, (n, eta_dim)."""
        return self.rows[0][:, : self.head.eta_dim]


def plausible_etas(head: Head, count: int = 4) -> list[Tensor]:
    """Complete etas about the head's null model, in its units; the first is the null model itself."""
    generator = torch.Generator().manual_seed(0)
    raw = 0.7 * torch.randn(count, head.eta_dim + head.shared_dim, dtype=torch.float64, generator=generator)
    raw[0] = 0
    shared = torch.cat([torch.zeros(head.eta_dim), head.shared.detach().cpu()]).double()
    return list((head.center + head.gain * (raw + shared)).detach().cpu().double())


def has_kinks(head: Head) -> bool:
    """Whether a head rounds off kinks of its density for a line search, so that there are some."""
    return type(head).rounded_nll is not Head.rounded_nll
