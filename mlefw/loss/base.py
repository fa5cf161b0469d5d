"""What a loss is: the NLL of a row, or something else that training descends in its place."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import logsigmoid

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.rows.rows import Rows


class Loss(nn.Module, ABC):
    """A number for each row that training descends; what is reported, watched and solved exactly is the plain NLL."""

    is_likelihood: bool = False
    """Whether it is the NLL itself, so that its minimum is the maximum likelihood estimate."""
    is_potential: bool = True
    """Whether its gradient is that of its value, which a line search counts on."""

    @abstractmethod
    def check(self, head: Head) -> None:
        """Refuse a head that it is not for.

        Raises:
            UsageError: naming the heads that it is for.
        """

    def learn(self, train: Rows) -> None:
        """Take from the training rows what it needs to know of them."""

    @abstractmethod
    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,), for a predicted eta (*batch, eta_dim) and y (*batch, *event_shape)."""


@torch.no_grad()
def check_classes(head: Head, name: str) -> int:
    """Refuse a head that predicts no probabilities of classes; how many classes there are.

    Raises:
        UsageError: naming what it predicts.
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
    """Those of each class, (*batch, num_classes)."""
    if isinstance(distribution, Bernoulli):
        return torch.stack([logsigmoid(-distribution.logits), logsigmoid(distribution.logits)], -1)
    assert isinstance(distribution, Categorical)
    return distribution.logits.log_softmax(-1)
