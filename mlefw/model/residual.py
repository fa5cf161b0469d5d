"""The exact linear estimate with a network on top: training starts at the estimate, not at the null model."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from mlefw.errors import UsageError
from mlefw.model.linear import Linear
from mlefw.model.mlp import Activation, Mlp


class Residual(nn.Module):
    """raw = x W' + b + network(x), W and b being the exact linear estimate (Schelldorfer & Wüthrich, 2019).

    The last layer of the network starts at zero, so every nat below the estimate is earned by the network. A frozen
    linear part is no weight of the model: a prior then holds the network alone, and draws it towards the estimate.
    A trainable one is held by the prior as the weights of a linear model are.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim), in float64: the estimate is held to its last digit.
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
        # The first parameters of a model tell `Standardized` in which precision to hand features on.
        self.linear = Linear(num_features, eta_dim).double().requires_grad_(linear == "trainable")
        self.network = Mlp(num_features, eta_dim, hidden, activation, dropout, layer_norm)

    @property
    def last(self) -> nn.Linear:
        """The last layer of the network."""
        return self.network.last

    def forward(self, x: Tensor) -> Tensor:
        """The raw output."""
        correction = self.network(x.to(self.last.weight.dtype))
        linear: Tensor = self.linear(x.to(self.linear.layer.weight.dtype))
        return linear + correction

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Take the estimate as the linear part."""
        self.linear.load(weight, bias)
