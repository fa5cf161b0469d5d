"""Standardisation of features as a layer around the model, so that a checkpoint takes features in original units."""

import torch
from torch import Tensor, nn

from mlefw.rows.rows import Rows


class Standardized(nn.Module):
    """A model that gets standardised features: raw = model(inputs((x − mean) / scale)).

    The features are standardised in the precision of x and then converted to that of the model's weights.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim).

    Args:
        model: maps (*batch, num_inputs) to (*batch, eta_dim).
        mean: mean of each feature in the training rows, (num_features,).
        scale: standard deviation of each feature in the training rows, (num_features,).
        inputs: the input map, an `mlefw.inputs.base.Inputs`; None where the model gets the standardised features.
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
        """Number of inputs of the model per row."""
        return len(self.mean) if self.inputs is None else int(self.inputs.num_inputs)  # type: ignore[arg-type]

    def typical(self) -> Tensor:
        """A row of means, (1, num_features)."""
        return self.mean[None]

    def forward(self, x: Tensor) -> Tensor:
        """The raw output of the model, (*batch, eta_dim), for features x in original units."""
        return self.model(self.standardize(x))

    def standardize(self, x: Tensor) -> Tensor:
        """The inputs of the model, (*batch, num_inputs), for features x in original units."""
        dtype = next((p.dtype for p in self.model.parameters()), x.dtype)
        z = (x - self.mean.to(x.device)) / self.scale.to(x.device)
        if self.inputs is not None:
            # The buffers of the input map are on the device of the model; the rows may be on another one.
            z = self.inputs(z.to(self.mean.device)).to(x.device)
        return z.to(dtype)


def feature_statistics(rows: Rows, standardize: bool) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of each feature of the training rows, both (num_features,).

    The variance is divided by Σ w. A constant feature gets scale 1: rounding errors divided by their own standard
    deviation would look like a feature. With `standardize` false, all means are 0 and all scales 1.
    """
    num_features = rows.x.shape[1]
    if not standardize:
        return torch.zeros(num_features, dtype=rows.x.dtype), torch.ones(num_features, dtype=rows.x.dtype)
    total, mean = rows.weight.sum(), torch.zeros(num_features, dtype=rows.x.dtype)
    # Blocks of about 8 megabytes, however many features there are.
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
    """Weighted mean and standard deviation of a numeric target (n,); the variance is divided by Σ w."""
    share = rows.weight / rows.weight.sum()
    y = rows.y.to(share.dtype)
    # The rounding of the mean would give a constant target a tiny positive standard deviation.
    if bool((y == y[0]).all()):
        return float(y[0]), 0.0
    mean = (share * y).sum()
    return float(mean), float((share * (y - mean).square()).sum().sqrt())
