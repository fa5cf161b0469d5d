"""Optional protocols of a model; any `nn.Module` with a forward pass is a model."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class StartsAtEstimate(Protocol):
    """A model that can start training at the exact linear estimate instead of the null model."""

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Set the raw output to x W' + b: weight (eta_dim, num_features) and bias (eta_dim,), float64 on the CPU."""


@runtime_checkable
class HasLastLayer(Protocol):
    """A model whose raw output is `last(phi)`, plus terms that do not depend on `last`, which can thus be refitted."""

    last: nn.Linear
