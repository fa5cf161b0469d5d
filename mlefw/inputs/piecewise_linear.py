"""Features beside a piecewise-linear code of each."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, quantiles
from mlefw.inputs.clipped import Clipped

_LEAST = torch.finfo(torch.float64).tiny
"""Of the width of a bin, whatever a damaged file holds."""


class PiecewiseLinear(Inputs):
    """The features as `Clipped` has them, then for each bin [a, b] of a feature clip((x − a) / (b − a), 0, 1).

    A network that is linear in these is a piecewise-linear function of each feature, whose steep places it need not
    find by training (Gorishniy et al., 2022, "On embeddings for numerical features in tabular deep learning"). The
    edges of the bins are the quantiles of the training rows at 0, 1 / num_bins, …, 1, each value once. So a feature of
    few values has few bins; one that would have a single bin, as a column of zeros and ones, has no code.

    The outermost edges are the bounds of `Clipped`, beyond which it compresses a feature.
    """

    column: Tensor
    start: Tensor
    end: Tensor

    def __init__(self, num_features: int, bins: int = 16, tail: float = 0.001, soft: bool = False) -> None:
        super().__init__()
        if not isinstance(bins, int) or isinstance(bins, bool) or bins < 2:
            raise UsageError(f"inputs.bins={bins}: expected a whole number of at least 2")
        self.bins, self.clipped = bins, Clipped(num_features, tail, soft)
        self.register_buffer("column", torch.zeros(0, dtype=torch.long))
        self.register_buffer("start", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("end", torch.zeros(0, dtype=torch.float64))

    @property
    def num_inputs(self) -> int:
        """The features and the bins of all of them."""
        return self.clipped.num_inputs + len(self.column)

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """The bounds, and within them the edges of the bins."""
        self.clipped.learn(x, weight)
        shares = torch.linspace(0, 1, self.bins + 1, dtype=x.dtype)
        edges = quantiles(x, weight, shares).clamp(self.clipped.lower, self.clipped.upper)
        found = [torch.unique(column) for column in edges.T]
        found = [column if len(column) > 2 else column[:0] for column in found]
        counts = torch.tensor([max(len(column) - 1, 0) for column in found], dtype=torch.long)
        none = x.new_zeros(0)
        self.column = torch.arange(len(found)).repeat_interleave(counts)
        self.start = torch.cat([none, *(column[:-1] for column in found)])
        self.end = torch.cat([none, *(column[1:] for column in found)])

    def forward(self, x: Tensor) -> Tensor:
        """The features, then the bins of the first one, of the second, and so on."""
        x = self.clipped(x)
        width = (self.end - self.start).clamp(min=_LEAST)
        code = (x.index_select(-1, self.column) - self.start) / width
        return torch.cat([x, code.clamp(0, 1)], -1)
