"""Adapter that makes a torchmetrics metric a `Metric`, on the predicted mean or on class probabilities."""

import copy
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

from mlefw.distribution.precision import promote
from mlefw.errors import UsageError
from mlefw.metric.base import Metric


class OfPrediction(Metric):
    """The figures of a torchmetrics metric, which takes point predictions and targets.

    Classification metrics get probabilities, (n,) for two classes and (n, num_classes) for more, and labels; all
    others get the mean of the predictive distribution and y. torchmetrics has no row weights: a whole number repeats
    its row, any other weight is refused. A metric whose states are all sums is computed block by block. One that keeps
    all rows (AUROC, a rank correlation) is computed from all rows at once, at the end of a run and in evaluations.

    Args:
        name: name of the figure, or common prefix of several figures.
        inner: the torchmetrics metric.
    """

    # A recorded evaluation would not repeat what Python code of the inner metric does.
    replayable = False

    states: Tensor

    def __init__(self, name: str, inner: Any) -> None:
        super().__init__()
        self.name = name
        # A tuple hides the inner metric from nn.Module, whose submodules here are taken to be instances of `Metric`.
        self._inner = (copy.deepcopy(inner).set_dtype(torch.float64),)
        self.of_classes = ".classification." in f"{type(inner).__module__}."
        reductions = inner._reductions
        self.is_additive = bool(reductions) and all(
            reduction is torchmetrics.utilities.dim_zero_sum and isinstance(inner._defaults[state], Tensor)
            for state, reduction in reductions.items()
        )
        self.shapes = [(state, inner._defaults[state]) for state in reductions] if self.is_additive else []
        self.add_sum("states", sum(default.numel() for _, default in self.shapes))

    @property
    def inner(self) -> Any:
        """The torchmetrics metric."""
        return self._inner[0]

    @property
    def has_exact(self) -> bool:
        """Whether the figures need all rows at once."""
        return not self.is_additive

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        if not self.is_additive:
            return
        self._update_inner(distribution, y, weight)
        found = [getattr(self.inner, state).reshape(-1).double() for state, _ in self.shapes]
        self.states = self.states + torch.cat(found).to(self.states.device)

    def compute(self) -> dict[str, Tensor]:
        """The figures; empty for a metric that needs all rows at once."""
        if not self.is_additive:
            return {}
        self.inner.reset()
        parts = self.states.split([default.numel() for _, default in self.shapes])
        for (state, default), part in zip(self.shapes, parts, strict=True):
            setattr(self.inner, state, part.reshape(default.shape).to(getattr(self.inner, state).dtype))
        self.inner._update_count = 1
        return self._named(self.inner.compute())

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The figures of the given rows; empty for a metric of sums."""
        if self.is_additive:
            return {}
        self._update_inner(distribution, y, weight)
        return self._named(self.inner.compute())

    def _update_inner(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Reset the inner metric and update it with the given rows.

        Raises:
            UsageError: a weight is not a whole number, or the metric is not for this kind of distribution.
        """
        if not bool((weight == weight.round()).all()):
            raise UsageError(
                f"metric.{self.name}: {type(self.inner).__name__} of torchmetrics takes no row weights but "
                "whole numbers, which repeat a row: expected data.weight of whole numbers, or another metric"
            )
        forecast, target = self._prediction(distribution), y.long() if self.of_classes else promote(y)
        if bool((weight != 1).any()):
            forecast, target = (part.repeat_interleave(weight.long(), 0) for part in (forecast, target))
        self.inner.to(forecast.device).reset()
        if len(target):
            self.inner.update(forecast.detach(), target)

    def _prediction(self, distribution: Distribution) -> Tensor:
        if isinstance(distribution, Categorical | Bernoulli) and (
            self.of_classes or not isinstance(distribution, Categorical)
        ):
            return promote(distribution.probs)
        if self.of_classes or isinstance(distribution, Categorical):
            kind = "classes" if self.of_classes else "numbers"
            raise UsageError(
                f"metric.{self.name}: {type(self.inner).__name__} of torchmetrics is for {kind}, and the head predicts "
                f"a {type(distribution).__name__}: expected a metric of the kind of the target"
            )
        return promote(distribution.mean)

    def _named(self, found: Any) -> dict[str, Tensor]:
        """Figures by name: that of the metric, followed by a key or number where there are several."""
        if isinstance(found, dict):
            return {f"{self.name}_{key}": promote(value.reshape(())) for key, value in found.items()}
        values = found.reshape(-1)
        if len(values) == 1:
            return {self.name: promote(values[0])}
        return {f"{self.name}_{k}": promote(value) for k, value in enumerate(values)}
