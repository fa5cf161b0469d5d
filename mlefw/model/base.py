"""What a model may offer beyond its forward pass; one that offers nothing loses only what is named here."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class StartsAtEstimate(Protocol):
    """A model that can start at the exact linear estimate rather than at the null model."""

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Make raw = x W' + b, W (eta_dim, num_features) and b (eta_dim,) being float64, on the CPU."""


@runtime_checkable
class HasLastLayer(Protocol):
    """A model whose raw output is `last(phi)` plus terms that `last` does not enter: its head can be refitted."""

    last: nn.Linear
