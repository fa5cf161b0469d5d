"""The negative log-likelihood."""

from torch import Tensor

from mlefw.head.base import Head
from mlefw.loss.base import Loss


class Plain(Loss):
    """The NLL of the head: training is maximum likelihood, or MAP estimation under a prior."""

    is_likelihood = True

    def check(self, head: Head) -> None:
        """It is for every head."""

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL, or where the head's density has a kink its smooth stand-in."""
        return head.descent_nll(eta, y)
