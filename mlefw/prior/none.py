"""The flat prior: maximum likelihood."""

from torch import Tensor

from mlefw.prior.base import Prior


class NoPrior(Prior):
    """A constant, improper density p(w), whose negative logarithm is taken as 0."""

    flat = True
    convex = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, w: Tensor) -> Tensor:
        """Zero."""
        return w.new_zeros(())
