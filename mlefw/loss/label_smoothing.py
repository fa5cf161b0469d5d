"""Label smoothing."""

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss, check_classes, log_probabilities


class LabelSmoothing(Loss):
    """Cross-entropy to labels that are taken to be wrong now and then (Szegedy et al., 2016).

    Loss: (1 − amount) · NLL(y) + amount · mean over all classes k of NLL(k). It holds probabilities off 0 and 1: the
    best prediction of a label that is certain is 1 − amount (1 − 1 / num_classes), which as a likelihood is too low.
    """

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        if not 0 <= amount < 1:
            raise UsageError(f"loss.amount={amount}: expected a probability in [0, 1)")
        self.amount = amount

    def check(self, head: Head) -> None:
        """It is for classes."""
        check_classes(head, "label_smoothing")

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row."""
        nll = head.nll(eta, y)
        with torch.autocast(eta.device.type, enabled=False):
            spread = -log_probabilities(head(eta)).mean(-1)
        return (1 - self.amount) * nll + self.amount * spread
