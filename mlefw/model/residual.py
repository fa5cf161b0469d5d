"""The exact linear estimate plus a multilayer perceptron; training starts at the estimate."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from mlefw.errors import UsageError
from mlefw.model.linear import Linear
from mlefw.model.mlp import Activation, Mlp


class Residual(nn.Module):
    """raw = x W' + b + network(x), W and b being the exact linear estimate (Schelldorfer & Wüthrich, 2019).

    The last layer of the network starts at zero, so that any gain over the estimate is due to the network. The prior
    applies to the weights of the network, which it shrinks towards the linear estimate, and to W and b where they are
    trainable.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim), in float64, to keep the estimate exact.

    Args:
        num_features: number of inputs per row.
        eta_dim: number of outputs per row.
        hidden: widths of the hidden layers of the network.
        activation: function behind each hidden layer.
        dropout: probability with which training drops an output of a hidden layer.
        layer_norm: whether each hidden layer is normalised before its activation.
        linear: whether W and b are `frozen` at the estimate, or `trainable`.

    Raises:
        UsageError: a setting is out of range.
    """

    def __init__(
        self,
        num_features: int,
        eta_dim: int,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "silu",
        dropout: float = 0.0,
        layer_norm: bool = False,
        linear: Literal["frozen", "trainable"] = "frozen",
    ) -> None:
        super().__init__()
        if linear not in ("frozen", "trainable"):
            raise UsageError(f"model.linear={linear!r}: expected 'frozen' or 'trainable'")
        # First, because `Standardized` hands features on in the precision of a model's first parameter.
        self.linear = Linear(num_features, eta_dim).double().requires_grad_(linear == "trainable")
        self.network = Mlp(num_features, eta_dim, hidden, activation, dropout, layer_norm)

    @property
    def last(self) -> nn.Linear:
        """The last layer of the network."""
        return self.network.last

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (*batch, eta_dim)."""
        correction = self.network(x.to(self.last.weight.dtype))
        linear: Tensor = self.linear(x.to(self.linear.layer.weight.dtype))
        return linear + correction

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Copy the estimate, weight (eta_dim, num_features) and bias (eta_dim,), into the linear part."""
        self.linear.load(weight, bias)
