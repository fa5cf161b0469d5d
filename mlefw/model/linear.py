"""The linear model, with which a head makes a generalised linear model."""

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """raw = x W' + b. W and b start at zero, so that training starts at the null model.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim).
    """

    def __init__(self, num_features: int, eta_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_features, eta_dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    @property
    def last(self) -> nn.Linear:
        """The layer whose output is the raw output: the only one."""
        return self.layer

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (*batch, eta_dim)."""
        return self.layer(x)

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor) -> None:
        """Copy weight (eta_dim, num_features) and bias (eta_dim,) into the layer."""
        self.layer.weight.copy_(weight)
        self.layer.bias.copy_(bias)
