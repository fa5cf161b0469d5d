"""What is done to features before the model, as a layer: a checkpoint takes raw x."""

import torch
from torch import Tensor, nn

from mlefw.rows.rows import Rows


class Standardized(nn.Module):
    """A model behind (x − mean) / scale, computed in the precision of x and handed on in that of the weights.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim).

    Args:
        model: (*batch, num_inputs) → (*batch, eta_dim).
        mean: of the training rows, (num_features,).
        scale: their standard deviation, (num_features,).
        inputs: what maps standardised features to the inputs of the model, an `mlefw.inputs.base.Inputs`; None where
            the model gets the standardised features themselves.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, scale: Tensor, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.inputs = inputs

    @property
    def num_inputs(self) -> int:
        """How many numbers the model gets of a row."""
        return len(self.mean) if self.inputs is None else int(self.inputs.num_inputs)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The raw output of the model for raw features."""
        return self.model(self.standardize(x))

    def standardize(self, x: Tensor) -> Tensor:
        """What the model gets, (*batch, num_inputs)."""
        dtype = next((p.dtype for p in self.model.parameters()), x.dtype)
        z = (x - self.mean.to(x.device)) / self.scale.to(x.device)
        if self.inputs is not None:
            # What the map has learnt lies where the model is, which rows need not.
            z = self.inputs(z.to(self.mean.device)).to(x.device)
        return z.to(dtype)


def feature_statistics(rows: Rows, standardize: bool) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation (over Σ w) of each feature, (num_features,), of the training rows.

    A constant column keeps scale 1, so that it becomes zero rather than noise; with `standardize` false they are 0, 1.
    """
    num_features = rows.x.shape[1]
    if not standardize:
        return torch.zeros(num_features, dtype=rows.x.dtype), torch.ones(num_features, dtype=rows.x.dtype)
    total, mean = rows.weight.sum(), torch.zeros(num_features, dtype=rows.x.dtype)
    # A block takes a few megabytes of memory, however many columns there are.
    size = max(2**20 // max(num_features, 1), 256)
    for block in rows.blocks(size):
        mean += block.weight @ block.x / total
    square = torch.zeros_like(mean)
    for block in rows.blocks(size):
        square += block.weight @ (block.x - mean).square()
    scale = (square / total).sqrt()
    constant = scale <= 1e-12 * mean.abs()
    return mean, torch.where(constant | (scale == 0), torch.ones_like(scale), scale)


def target_statistics(rows: Rows) -> tuple[float, float]:
    """Weighted mean and standard deviation (over Σ w) of a numeric target."""
    share = rows.weight / rows.weight.sum()
    y = rows.y.to(share.dtype)
    # A constant target has spread zero exactly, whatever the rounding of its mean.
    if bool((y == y[0]).all()):
        return float(y[0]), 0.0
    mean = (share * y).sum()
    return float(mean), float((share * (y - mean).square()).sum().sqrt())
