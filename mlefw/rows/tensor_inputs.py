"""What a model gets of rows that are no rows of a table: standardised channels, or tokens; layers around the model."""

import torch
from torch import Tensor, nn

from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import feature_statistics

_CELLS = 2**20
"""Numbers that a pass over the rows converts to 64 bit at a time."""


class StandardizedChannels(nn.Module):
    """A model that gets rows with standardised channels: raw = model(augment((x − mean) / scale)).

    Rows may be of any dtype, such as uint8, and become floating-point numbers of the precision of the model here, on
    its device. In training mode a random map `augment` comes before the model. Where the model takes vectors, rows are
    flattened last.

    Shapes: x (n, *input_shape) → raw of the model.

    Args:
        model: maps rows, or vectors, to the raw output.
        mean: mean of each channel, of a shape that broadcasts over input_shape, such as (channels, 1, 1); float64.
        scale: standard deviation of each channel, shaped like `mean`.
        shape: the shape of a row.
        is_flat: whether the model takes vectors, (n, num_features).
        augment: a random map of standardised rows for training steps; None for none. It holds no state.
    """

    mean: Tensor
    scale: Tensor
    inputs: None = None

    def __init__(
        self,
        model: nn.Module,
        mean: Tensor,
        scale: Tensor,
        shape: RowShape,
        is_flat: bool = False,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model, self.augment, self.shape, self.is_flat = model, augment, shape, is_flat
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @property
    def num_inputs(self) -> int:
        """How many numbers of a row the model gets."""
        return self.shape.num_features

    def forward(self, x: Tensor) -> Tensor:
        """The raw output of the model for rows x as their source has them."""
        z = self._scaled(x)
        if self.training and self.augment is not None:
            z = self.augment(z)
        return self.model(self._flat(z))

    def standardize(self, x: Tensor) -> Tensor:
        """What the model gets of rows x as their source has them, in evaluation."""
        return self._flat(self._scaled(x))

    def typical(self) -> Tensor:
        """A row of means, (1, *input_shape), float64."""
        return self.mean.expand(1, *self.shape.input_shape)

    def _scaled(self, x: Tensor) -> Tensor:
        dtype = next((p.dtype for p in self.model.parameters()), torch.float64)
        # Differences of 64-bit numbers may be lost in 32 bit; those of 8 and 16 bit are exact there.
        wide = x.dtype in (torch.float64, torch.int32, torch.int64)
        z = x.to(torch.float64 if wide else dtype)
        return ((z - self.mean.to(z)) / self.scale.to(z)).to(dtype)

    def _flat(self, z: Tensor) -> Tensor:
        return z.flatten(1) if self.is_flat else z


class Tokens(nn.Module):
    """A model that gets tokens as int64, on its device, from rows of any integer dtype.

    Shapes: x (n, T) → raw of the model.

    Args:
        model: maps tokens (n, T) int64 to the raw output.
        shape: the shape of a row.
    """

    inputs: None = None

    def __init__(self, model: nn.Module, shape: RowShape) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    @property
    def num_inputs(self) -> int:
        """The number of tokens of a row."""
        return self.shape.input_shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """The raw output of the model."""
        return self.model(x.long())

    def standardize(self, x: Tensor) -> Tensor:
        """The tokens as the model gets them."""
        return x.long()

    def typical(self) -> Tensor:
        """A row of zeros, (1, T)."""
        return torch.zeros(1, *self.shape.input_shape, dtype=torch.long)


def unit_statistics(shape: RowShape) -> tuple[Tensor, Tensor]:
    """Means of 0 and standard deviations of 1 of the columns or channels of a row, both float64.

    They broadcast over input_shape: (num_features,) for a table, (channels, 1, 1) for an image, (0,) for tokens.
    """
    if shape.num_tokens is not None:
        sizes = [0]
    elif shape.is_table:
        sizes = [shape.num_features]
    else:
        dims = range(len(shape.input_shape))
        channel = None if shape.channel_dim is None else dims[shape.channel_dim]
        sizes = [shape.input_shape[d] if d == channel else 1 for d in dims]
    return torch.zeros(sizes, dtype=torch.float64), torch.ones(sizes, dtype=torch.float64)


def row_statistics(rows: Rows, shape: RowShape, standardize: bool) -> tuple[Tensor, Tensor]:
    """Weighted means and standard deviations of the columns or channels of the training rows, as `unit_statistics`.

    The statistics of a channel are over rows and pixels (or steps); a row counts by the sum of its weights over its
    positions. The variance is divided by the sum of weights. What is constant gets scale 1. With `standardize` false
    all means are 0 and all scales 1.
    """
    if shape.is_table:
        return feature_statistics(rows, standardize)
    zero, one = unit_statistics(shape)
    if not standardize or shape.num_tokens is not None:
        return zero, one
    mean = _moment(rows, zero, 1)
    spread = _moment(rows, mean, 2).sqrt()
    constant = spread <= 1e-12 * mean.abs()
    return mean, torch.where(constant | (spread == 0), one, spread)


def _moment(rows: Rows, center: Tensor, power: int) -> Tensor:
    """The weighted mean of (x − center) to a power over rows and the dimensions in which `center` has one entry."""
    total, found = 0.0, torch.zeros_like(center)
    num_cells = rows.x[0].numel() // center.numel()
    for block in rows.blocks(max(1, _CELLS // max(1, rows.x[0].numel()))):
        weight = block.weight.reshape(block.num_rows, -1).sum(1)
        weighted = torch.einsum("n,n...->...", weight, (block.x.double() - center) ** power)
        found += weighted.sum_to_size(center.shape)
        total += float(weight.sum())
    return found / (total * num_cells)
