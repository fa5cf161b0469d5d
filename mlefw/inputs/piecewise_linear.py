"""Features and a piecewise-linear code of each."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, quantiles
from mlefw.inputs.clipped import Clipped

_MIN_WIDTH = torch.finfo(torch.float64).tiny
"""Least width of a bin, so that the buffers of a damaged checkpoint cause no division by zero."""


class PiecewiseLinear(Inputs):
    """The features as `Clipped` returns them, and for each bin [a, b] of a feature clip((x − a) / (b − a), 0, 1).

    A linear function of these inputs is a sum of piecewise-linear functions of the features, so that a network need
    not learn where the target changes fast (Gorishniy et al., 2022, "On embeddings for numerical features in tabular
    deep learning"). The edges of the bins are the quantiles of the training rows at 0, 1 / bins, …, 1, each value once.
    So a feature with few values has few bins; one that would have a single bin, such as a column of zeros and ones, has
    no code.

    The outermost edges are the bounds of `Clipped`.

    Args:
        num_features: number of features of a row.
        bins: most bins of a feature.
        tail: share of the training rows beyond each bound, as for `Clipped`.
        soft: whether different values beyond a bound stay different, as for `Clipped`.

    Raises:
        UsageError: `bins` is not a whole number of at least 2.
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
        """The number of features plus the number of bins of all features."""
        return self.clipped.num_inputs + len(self.column)

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Set the bounds and the edges of the bins; shapes as in `Inputs.learn`."""
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
        """(*batch, num_inputs): the features, then the codes of the first feature, of the second, and so on."""
        x = self.clipped(x)
        width = (self.end - self.start).clamp(min=_MIN_WIDTH)
        code = (x.index_select(-1, self.column) - self.start) / width
        return torch.cat([x, code.clamp(0, 1)], -1)
