"""`Inputs`, the interface of an input map, which is learnt from the training rows before the model is built."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlefw.errors import UsageError
from mlefw.rows.rows import Rows

_MAX_CELLS = 2**22
"""Most numbers that a map learns from, 32 megabytes; of a larger table it learns from every second, third, … row."""

_TOLERANCE = 1e-9
"""Share of the sum of weights: rounding of cumulative weights, by the order of equal rows, moves no quantile."""


class Inputs(nn.Module, ABC):
    """Maps the standardised features of a row to the inputs of the model.

    Shapes: x (*batch, num_features) → (*batch, num_inputs), both float64. The inputs of a row depend on no other row.

    A map is learnt once, from the training rows alone, before the model is built. All its state is in buffers, float64
    or int64, which a checkpoint holds beside the weights of the model. A map has no parameters: what training adjusts
    belongs to the model. The exact linear estimate of a run always has the features themselves.
    """

    @property
    @abstractmethod
    def num_inputs(self) -> int:
        """Number of inputs of the model per row; known once the map is learnt, or its buffers are restored."""

    @abstractmethod
    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Set the buffers, whose lengths may change, from training rows.

        Args:
            x: standardised features, (n, num_features), float64; of a very large table, evenly spaced rows only.
            weight: weights of the rows, (n,), positive; they are frequencies: weight 2 counts as the row twice.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The inputs of the model, (*batch, num_inputs), for standardised features x."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the buffers from those of a checkpoint, whose lengths may differ.

        Args:
            state: buffers by name, as in `state_dict`.

        Raises:
            UsageError: a buffer is missing, or has another dtype or number of dimensions.
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
    """Let a map learn from the training rows.

    `mean` and `scale`: those of the features by which they are standardised, (num_features,). Rows of weight zero are
    left out.
    """
    step = max(1, -(-rows.x.numel() // _MAX_CELLS))
    some = rows.take(slice(None, None, step))
    counted = torch.cat([block.weight > 0 for block in some.blocks(2**12)])
    x, size = mean.new_empty(int(counted.sum()), len(mean)), 0
    for block in some.blocks(2**12):
        kept = (block.x[block.weight > 0] - mean) / scale
        x[size : size + len(kept)] = kept
        size += len(kept)
    inputs.learn(x, some.weight[counted].clone())


def quantiles(x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
    """Weighted quantiles of each column: the least value up to which the share of the weight is at least p.

    Shapes: x (n, columns), weight (n,) positive, probabilities (k,) → (k, columns).
    """
    found = x.new_empty(len(probabilities), x.shape[1])
    for j in range(x.shape[1]):
        values, order = x[:, j].sort()
        up_to = weight[order].cumsum(0)
        index = torch.searchsorted(up_to, probabilities * up_to[-1] * (1 - _TOLERANCE))
        found[:, j] = values[index]
    return found
