"""Optional interfaces of models. Any `nn.Module` that maps (*batch, num_inputs) to (*batch, eta_dim) is a model."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class StartsAtEstimate(Protocol):
    """A model that starts training at the exact linear estimate instead of the null model."""

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Set the raw output to x W' + b, weight W (eta_dim, num_features) and bias b (eta_dim,) in float64 on CPU."""


@runtime_checkable
class HasLastLayer(Protocol):
    """A model whose raw output is `last(phi)` plus terms without `last`, so that `last` can be refitted exactly."""

    last: nn.Linear
