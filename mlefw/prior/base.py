"""`Prior`, the interface of a prior on weights."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlefw.errors import UsageError


class Prior(nn.Module, ABC):
    """A product density over the entries of a weight tensor; calling it gives −log p(w) in nats, constants included.

    Weights are matrices and kernels (two dimensions or more), as the network holds them; biases, the gains of
    normalisation layers and shared distribution parameters have a flat prior.
    """

    convex: bool = False
    """Whether −log p is convex, so that with a convex head a stationary point is the global optimum.

    The exact side also probes this claim before it calls an optimum global.
    """
    rate: float = 0.0
    """Coefficient of |w| in −log p(w): the part with a kink, which only `prox` handles."""
    flat: bool = False
    """Whether the density is constant (improper), so that MAP and maximum likelihood estimates coincide."""

    @property
    def smooth(self) -> bool:
        """Whether −log p is differentiable everywhere, so that `prox` is the identity."""
        return self.rate == 0

    @abstractmethod
    def forward(self, w: Tensor) -> Tensor:
        """−log p(w), a scalar, in nats."""

    def smooth_part(self, w: Tensor) -> Tensor:
        """The differentiable part of −log p(w), a scalar, which autograd descends; `prox` handles the rest."""
        return self(w)

    def prox(self, w: Tensor, step: Tensor | float) -> Tensor:
        """argmin_v ½ (v − w)² / step + rate · |v|, elementwise; `step` is a scalar or shaped like w."""
        return soft_threshold(w, step * self.rate) if self.rate else w


def soft_threshold(w: Tensor, threshold: Tensor | float) -> Tensor:
    """argmin_v ½ (v − w)² + threshold · |v|, elementwise; the threshold broadcasts over w and is not negative."""
    return w.sign() * (w.abs() - threshold).clamp(min=0)


def check_scale(setting: str, scale: float) -> float:
    """The scale of a prior as a float; `setting` names it in the error.

    Raises:
        UsageError: the scale is not a positive finite number.
    """
    if not 0 < scale < float("inf"):
        raise UsageError(f"{setting}={scale}: expected a positive number, the scale of the prior density of a weight")
    return float(scale)
