"""What an input map is: what the model gets of a row's features, learnt from the training rows before training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlefw.errors import UsageError
from mlefw.rows.rows import Rows

_MOST = 2**22
"""Numbers that a map learns from, 32 megabytes: of more, rows at even distances have to do."""

_ROUNDING = 1e-9
"""Of the sum of all weights: sums in another order are the same quantile."""


class Inputs(nn.Module, ABC):
    """Maps the standardised features of a row to the inputs of the model.

    Shapes: x (*batch, num_features) → (*batch, num_inputs), float64 both. A row's inputs depend on no other row.

    It is learnt once, from the training rows alone, before the model is built. All its state is buffers, which a
    checkpoint keeps beside the weights of the model: float64, or int64 for positions. It has no parameters: what is to
    be trained is part of the model. The exact linear estimate beside a run has the features themselves always.
    """

    @property
    @abstractmethod
    def num_inputs(self) -> int:
        """How many numbers the model gets of a row; known once the map is learnt, or its buffers are restored."""

    @abstractmethod
    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Set the buffers, whose lengths may change, from training rows.

        Args:
            x: standardised features, (n, num_features), float64; of a very large table, rows at even distances.
            weight: of the rows, (n,), positive; it means frequencies: weight 2 is the row twice.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """What the model gets."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over buffers by name, as a checkpoint holds them, of whatever lengths.

        Raises:
            UsageError: one is not there, or is of another kind.
        """
        for name, value in list(self.named_buffers()):
            new = state.get(name)
            if new is None or new.ndim != value.ndim or new.dtype != value.dtype:
                kind = str(value.dtype).removeprefix("torch.")
                expected = f"expected a tensor of {kind} with {value.ndim} dimensions"
                raise UsageError(f"the stored {name!r} is none of {type(self).__name__}: {expected}")
            path, _, own = name.rpartition(".")
            setattr(self.get_submodule(path), own, new.detach().clone())


def learn(inputs: Inputs, rows: Rows, mean: Tensor, scale: Tensor) -> None:
    """Let a map learn from the training rows, whose features have this mean and scale, (num_features,)."""
    step = max(1, -(-rows.x.numel() // _MOST))
    some = rows.take(slice(None, None, step))
    counted = torch.cat([block.weight > 0 for block in some.blocks(2**16)])
    x = torch.cat([(block.x - mean) / scale for block in some.blocks(2**16)])
    inputs.learn(x[counted], some.weight[counted].clone())


def quantiles(x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
    """Weighted quantiles of each column: the least value that has at least that share of the weight up to it.

    Shapes: x (n, columns), weight (n,) positive, probabilities (k,) → (k, columns).
    """
    found = x.new_empty(len(probabilities), x.shape[1])
    for j in range(x.shape[1]):
        values, order = x[:, j].sort()
        up_to = weight[order].cumsum(0)
        index = torch.searchsorted(up_to, probabilities * up_to[-1] * (1 - _ROUNDING))
        found[:, j] = values[index]
    return found
