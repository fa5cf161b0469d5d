"""The focal loss."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss, check_classes


class Focal(Loss):
    """Cross-entropy with less weight on rows that are already predicted well (Lin et al., 2017).

    Loss: (1 − p)^gamma · NLL, with p = exp(−NLL) the probability of the label. Its minimum is not at the true
    probabilities: predictions are underconfident, which the NLL and the calibration metrics show.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise UsageError(f"loss.gamma={gamma}: expected a number of at least 0 (0: the plain NLL)")
        self.gamma = gamma

    def check(self, head: Head) -> None:
        """Refuse a head that predicts no class probabilities."""
        check_classes(head, "focal")

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,)."""
        nll = head.nll(eta, y)
        # At 1 − p = 0 a power below one has an infinite derivative.
        shortfall = (-torch.expm1(-nll)).clamp(min=torch.finfo(nll.dtype).tiny)
        return shortfall**self.gamma * nll
