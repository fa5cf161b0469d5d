"""`Loss`, the interface of a loss, and what losses of class probabilities share."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import logsigmoid

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.rows.rows import Rows


class Loss(nn.Module, ABC):
    """A number for each row whose weighted mean training descends.

    Reports, early stopping and exact solvers use the NLL whatever the loss.
    """

    is_likelihood: bool = False
    """Whether the loss is the NLL, so that its minimum is the maximum likelihood estimate."""
    is_potential: bool = True
    """Whether the gradient that training uses is the gradient of the loss's value, as a line search requires."""
    estimate: ClassVar[str] = ""
    """Usual name of the estimate at the minimum of a loss that is not the NLL, such as `minimum CRPS`; "" for none."""

    @abstractmethod
    def check(self, head: Head) -> None:
        """Refuse a head that the loss is not defined for.

        Raises:
            UsageError: the loss is not defined for this head; the message names heads that would do.
        """

    def learn(self, train: Rows) -> None:
        """Compute from the training rows whatever the loss depends on, such as class frequencies."""

    @abstractmethod
    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,), for a predicted eta (*batch, eta_dim) and y (*batch, *event_shape)."""


@torch.no_grad()
def check_classes(head: Head, name: str) -> int:
    """The number of classes whose probabilities a head predicts; `name` is that of the loss, for the error.

    Raises:
        UsageError: the head predicts no class probabilities.
    """
    distribution = head(head.center.new_zeros(1, head.eta_dim))
    if not isinstance(distribution, Bernoulli | Categorical):
        kind = type(distribution).__name__
        raise UsageError(
            f"loss={name} is for the probabilities of classes, and the head predicts a {kind}: "
            "expected head=bernoulli, categorical or ordinal, or loss=plain"
        )
    return log_probabilities(distribution).shape[-1]


def log_probabilities(distribution: Distribution) -> Tensor:
    """The log-probability of each class, (*batch, num_classes)."""
    if isinstance(distribution, Bernoulli):
        return torch.stack([logsigmoid(-distribution.logits), logsigmoid(distribution.logits)], -1)
    assert isinstance(distribution, Categorical)
    return distribution.logits.log_softmax(-1)
