"""The linear model, with which a head makes a generalised linear model."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class Linear(nn.Module):
    """raw = x W' + b. W and b start at zero, so that training starts at the null model.

    Tokens stand for their one-hot codes, so that W' is a table with the raw output of each token.

    Shapes: x (*batch, num_features), or tokens (*batch,) in int64 → raw (*batch, eta_dim).

    Args:
        num_features: number of inputs per row, or number of distinct tokens.
        eta_dim: number of outputs per row, or per token.
        num_tokens: number of distinct tokens where x holds tokens; None where it holds numbers.
    """

    def __init__(self, num_features: int, eta_dim: int, num_tokens: int | None = None) -> None:
        super().__init__()
        self.takes_tokens = num_tokens is not None
        with warnings.catch_warnings():
            # The null model has no weights, of which torch would warn.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.layer = nn.Linear(num_features, eta_dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    @property
    def last(self) -> nn.Linear:
        """The layer whose output is the raw output: the only one."""
        return self.layer

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (*batch, eta_dim)."""
        return embedding(x, self.layer.weight.T) + self.layer.bias if self.takes_tokens else self.layer(x)

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor) -> None:
        """Copy weight (eta_dim, num_features) and bias (eta_dim,) into the layer."""
        self.layer.weight.copy_(weight)
        self.layer.bias.copy_(bias)
