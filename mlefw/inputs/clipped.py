"""Features that are held near the training rows."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, quantiles


class Clipped(Inputs):
    """Each feature x as it is between two of its weighted quantiles in the training rows; beyond, it hardly grows.

    The bounds are the quantiles at `tail` and at 1 − `tail`. At a distance d beyond a bound, in standard deviations of
    the feature, the input lies d / (1 + d) beyond it: never more than one of them, and rows that differ there still do.
    With `soft` false it is the bound, and they are alike.

    Of fewer than 1 / tail rows the bounds are the least and the largest value: no training row is changed. A feature of
    which both quantiles are one value, as an indicator of a rare level, has its least and its largest value as bounds.

    Args:
        num_features: of a row.
        tail: share of the training rows beyond each bound.
        soft: whether values beyond the bounds still differ; a run whose settings do not say was trained without.
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
        """As many as there are features."""
        return len(self.lower)

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Two quantiles of each feature."""
        shares = torch.tensor([0.0, self.tail, 1 - self.tail, 1.0], dtype=x.dtype)
        least, low, high, most = quantiles(x, weight, shares)
        self.lower, self.upper = torch.where(low < high, low, least), torch.where(low < high, high, most)

    def forward(self, x: Tensor) -> Tensor:
        """The features, those beyond their bounds near them."""
        held = x.clamp(self.lower, self.upper)
        if not self.soft:
            return held
        beyond = x - held
        return held + beyond / (1 + beyond.abs())
