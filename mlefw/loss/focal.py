"""The focal loss."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss, check_classes


class Focal(Loss):
    """Cross-entropy that turns away from rows that are predicted well already (Lin et al., 2017).

    Loss: (1 − p)^gamma · NLL, with p = exp(−NLL) the probability of the label. Its minimum is not at the true
    probabilities but nearer to one another: predictions are too cautious, as the plain NLL and its calibration tell.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise UsageError(f"loss.gamma={gamma}: expected a number of at least 0 (0: the plain NLL)")
        self.gamma = gamma

    def check(self, head: Head) -> None:
        """It is for classes."""
        check_classes(head, "focal")

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row."""
        nll = head.nll(eta, y)
        # Where nothing is missed, a power below one would have no slope.
        missed = (-torch.expm1(-nll)).clamp(min=torch.finfo(nll.dtype).tiny)
        return missed**self.gamma * nll
