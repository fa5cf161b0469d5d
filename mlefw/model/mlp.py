"""The multilayer perceptron."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from mlefw.errors import UsageError

Activation = Literal["relu", "silu", "gelu", "tanh", "elu"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}


class Mlp(nn.Module):
    """Fully connected layers, the last of which starts at zero, so that training starts at the null model.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim).

    Args:
        num_features: number of inputs per row.
        eta_dim: number of outputs per row.
        hidden: widths of the hidden layers.
        activation: function behind each hidden layer.
        dropout: probability with which training drops an output of a hidden layer.
        layer_norm: whether each hidden layer is normalised before its activation.

    Raises:
        UsageError: a width, the activation or the dropout is out of range.
    """

    def __init__(
        self,
        num_features: int,
        eta_dim: int,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "silu",
        dropout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if any(not isinstance(width, int) or isinstance(width, bool) or width < 1 for width in hidden):
            raise UsageError(f"model.hidden={list(hidden)}: expected whole numbers of at least 1, such as [64,64]")
        if activation not in _ACTIVATIONS:
            raise UsageError(f"model.activation={activation!r}: expected one of {', '.join(_ACTIVATIONS)}")
        if not 0 <= dropout < 1:
            raise UsageError(f"model.dropout={dropout}: expected a probability in [0, 1)")
        layers: list[nn.Module] = []
        width = num_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            layers += [nn.LayerNorm(next_width)] if layer_norm else []
            layers.append(_ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout else []
            width = next_width
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, eta_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (*batch, eta_dim)."""
        return self.last(self.body(x))
