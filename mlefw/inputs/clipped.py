"""Features limited to the range of the training rows."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, quantiles


class Clipped(Inputs):
    """Each feature unchanged between two bounds, and compressed beyond them.

    The bounds of a feature are its weighted quantiles at `tail` and 1 − `tail` in the training rows. With `soft`, a
    value at a distance d beyond a bound, in standard deviations of the feature, becomes d / (1 + d) beyond it: less
    than one standard deviation, and different values stay different. Without `soft` it becomes the bound.

    With fewer than 1 / tail rows the bounds are the least and the largest value, and no training row changes. They are
    so, too, where the two quantiles are equal, as for the indicator of a rare level.

    Args:
        num_features: number of features of a row.
        tail: share of the training rows beyond each bound.
        soft: whether different values beyond a bound stay different. False by default, because stored runs without
            this setting were trained so.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, num_features: int, tail: float = 0.001, soft: bool = False) -> None:
        super().__init__()
        if not 0 <= tail < 0.5:
            raise UsageError(f"inputs.tail={tail}: expected a share of the rows of at least 0 and below 0.5")
        self.tail, self.soft = tail, soft
        endless = torch.full((num_features,), torch.finfo(torch.float64).max, dtype=torch.float64)
        self.register_buffer("lower", -endless)
        self.register_buffer("upper", endless)

    @property
    def num_inputs(self) -> int:
        """The number of features."""
        return len(self.lower)

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Set the bounds of each feature; shapes as in `Inputs.learn`."""
        shares = torch.tensor([0.0, self.tail, 1 - self.tail, 1.0], dtype=x.dtype)
        least, low, high, most = quantiles(x, weight, shares)
        self.lower, self.upper = torch.where(low < high, low, least), torch.where(low < high, high, most)

    def forward(self, x: Tensor) -> Tensor:
        """The features, those beyond their bounds compressed; shapes x (*batch, num_features) → the same shape."""
        held = x.clamp(self.lower, self.upper)
        if not self.soft:
            return held
        beyond = x - held
        return held + beyond / (1 + beyond.abs())
