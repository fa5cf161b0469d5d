"""Cross-entropy with label smoothing."""

from torch import Tensor

from mlefw.distribution.precision import full_precision
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss, check_classes, log_probabilities


class LabelSmoothing(Loss):
    """Cross-entropy to labels mixed with the uniform distribution over classes (Szegedy et al., 2016).

    Loss: (1 − amount) · NLL(y) + amount · mean over all classes k of NLL(k). It keeps probabilities away from 0 and 1:
    a label that is certain is predicted with 1 − amount (1 − 1 / num_classes), which is underconfident.
    """

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        if not 0 <= amount < 1:
            raise UsageError(f"loss.amount={amount}: expected a probability in [0, 1)")
        self.amount = amount

    def check(self, head: Head) -> None:
        """Refuse a head that predicts no class probabilities."""
        check_classes(head, "label_smoothing")

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,)."""
        nll = head.nll(eta, y)
        with full_precision(eta.device):
            spread = -log_probabilities(head(eta)).mean(-1)
        return (1 - self.amount) * nll + self.amount * spread
