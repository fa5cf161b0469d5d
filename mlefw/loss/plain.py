"""The negative log-likelihood."""

from torch import Tensor

from mlefw.head.base import Head
from mlefw.loss.base import Loss


class Plain(Loss):
    """The NLL of the head: training is maximum likelihood, or MAP estimation under a prior."""

    is_likelihood = True

    def check(self, head: Head) -> None:
        """Accept every head."""

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL of each row, (*batch,), smoothed by `Head.kink` during the line search of a density with a kink."""
        return head.descent_nll(eta, y)
