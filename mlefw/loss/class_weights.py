"""Cross-entropy with class weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss, check_classes
from mlefw.rows.rows import Rows


class ClassWeights(Loss):
    """Cross-entropy in which rows count by the weight of their class.

    Loss: weight(y) · NLL, the weights scaled so that their mean over the training rows is one. It is the likelihood
    for a population with other class shares (King & Zeng, 2001): predicted probabilities are for that population, and
    too high for classes with a large weight.

    Args:
        weights: one for each class, in the order of the labels, or `balanced`: each class has the same total weight.
    """

    weight: Tensor

    def __init__(self, weights: Literal["balanced"] | Sequence[float] = "balanced") -> None:
        super().__init__()
        if not isinstance(weights, str) and not all(0 <= weight < float("inf") for weight in weights):
            raise UsageError(f"loss.weights={list(weights)}: expected finite numbers of at least 0")
        self.weights = weights
        self.register_buffer("weight", torch.ones(0, dtype=torch.float64), persistent=False)

    def check(self, head: Head) -> None:
        """Refuse a head that predicts no class probabilities, or another number of classes than weights."""
        self.num_classes = check_classes(head, "class_weights")
        if not isinstance(self.weights, str) and len(self.weights) != self.num_classes:
            raise UsageError(
                f"loss.weights={list(self.weights)}: expected {self.num_classes} numbers, one for each class in the "
                "order of their labels, or balanced"
            )

    def learn(self, train: Rows) -> None:
        """Scale the weights by the class frequencies of the training rows."""
        count = torch.bincount(train.y.long(), train.weight.double(), minlength=self.num_classes)
        given = (
            count.clamp(min=1e-300).reciprocal() if isinstance(self.weights, str) else count.new_tensor(self.weights)
        )
        total = float((given * count).sum())
        if not total > 0:
            raise UsageError(f"loss.weights={self.weights}: no class of the training rows has a weight above 0")
        self.weight = torch.where(count > 0, given * count.sum() / total, torch.zeros_like(count))

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,)."""
        return self.weight[y.long()] * head.nll(eta, y)
