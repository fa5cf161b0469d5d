"""What a prior on weights is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlefw.errors import UsageError


class Prior(nn.Module, ABC):
    """A product density over the entries of a weight tensor; calling it gives −log p(w) in nats, constants included.

    Weights are matrices and kernels (two dimensions or more), as the network holds them; biases, the gains of
    normalisation layers and shared distribution parameters have a flat prior.
    """

    convex: bool = True
    smooth: bool = True
    """Whether autograd can descend the whole density, so that `prox` is the identity."""
    flat: bool = False
    """Whether the density is the improper constant one, so that MAP and maximum likelihood coincide."""

    @abstractmethod
    def forward(self, w: Tensor) -> Tensor:
        """−log p(w), a scalar, in nats."""

    def smooth_part(self, w: Tensor) -> Tensor:
        """The part that autograd descends, a scalar; what it leaves out is handled by `prox` alone."""
        return self(w)

    def prox(self, w: Tensor, step: Tensor | float) -> Tensor:
        """argmin_v ½ (v − w)² / step + (non-smooth part)(v), elementwise; `step` is a scalar or shaped like w."""
        return w


def check_scale(setting: str, scale: float) -> float:
    """`scale` as a float.

    Raises:
        UsageError: it is not a positive finite number.
    """
    if not 0 < scale < float("inf"):
        raise UsageError(f"{setting}={scale}: expected a positive number, the scale of the prior density of a weight")
    return float(scale)


def soft_threshold(w: Tensor, threshold: Tensor | float) -> Tensor:
    """sign(w) max(|w| − threshold, 0): the proximal map of threshold · |·|."""
    return w.sign() * (w.abs() - threshold).clamp(min=0)
