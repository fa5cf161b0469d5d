"""Monte Carlo dropout: predictions averaged over random dropout masks."""

import math
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.dropout import _DropoutNd

from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.uncertainty.base import Method, Uncertain
from mlefw.uncertainty.marginal import average


class McDropout(Method):
    """Dropout is left on at prediction, and the predictive distributions of many masks are mixed.

    Source: Gal & Ghahramani (2016).

    Args:
        num_masks: number of masks, the components of the mixture.
        seed: seed of the masks. All rows share the masks, so that a prediction does not depend on the other rows or
            their order.
    """

    name: ClassVar = "mc_dropout"
    needs_rows: ClassVar = False

    def __init__(self, num_masks: int = 100, seed: int = 0) -> None:
        if num_masks < 1:
            raise UsageError(f"uncertainty.num_masks={num_masks}: expected a whole number of at least 1")
        self.num_masks, self.seed = num_masks, seed

    def check(self, objective: Objective) -> None:
        """Refuse a model without dropout.

        Raises:
            UsageError: the model has no dropout, or dropout of channels rather than units; or several targets.
        """
        if objective.head.event_shape:
            name = type(objective.head).__name__
            raise UsageError(f"uncertainty=mc_dropout is for one target known exactly, not for {name}: expected none")
        found = _layers(objective)
        other = [type(layer).__name__ for layer in found if type(layer) is not nn.Dropout]
        if other:
            raise UsageError(f"uncertainty=mc_dropout: the model has a {other[0]}: expected torch.nn.Dropout alone")
        if not found:
            raise UsageError(
                "uncertainty=mc_dropout averages over the units that training dropped, and the model has no dropout: "
                "expected a run of `mlefw train model.dropout=0.1` or the like, or uncertainty=laplace"
            )

    def fit(self, objective: Objective, train: Rows | None = None) -> "DropoutMasks":
        """The masks for a model, each drawn when its layer is first evaluated.

        Raises:
            UsageError: `check` refuses the objective.
        """
        self.check(objective)
        return DropoutMasks(self.num_masks, self.seed)


class DropoutMasks(Uncertain):
    """Masks of every dropout layer, drawn once; a prediction is the mixture over the masks."""

    name = "mc_dropout"

    def __init__(self, num_masks: int, seed: int) -> None:
        self.num_masks, self.number = num_masks, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.masks: dict[int, Tensor] = {}

    def facts(self) -> dict[str, Any]:
        """The number of masks, `num_masks`."""
        return {"num_masks": self.num_masks}

    @torch.no_grad()
    def predictive(self, objective: Objective, rows: Rows) -> Distribution:
        """The mixture of each row's distributions over the masks, (n,); for classes, their mean probabilities."""
        training = objective.training
        layers = enumerate(_layers(objective))
        hooks = [layer.register_forward_hook(partial(self._drop, index)) for index, layer in layers]
        try:
            objective.eval()
            etas = [self._eta(objective, rows, number) for number in range(self.num_masks)]
        finally:
            objective.train(training)
            for hook in hooks:
                hook.remove()
        log_weight = torch.full((self.num_masks,), -math.log(self.num_masks), dtype=torch.float64)
        return average(log_weight, objective.head.distribution(torch.stack(etas, 1)))

    def _eta(self, objective: Objective, rows: Rows, number: int) -> Tensor:
        self.number = number
        return objective.head.complete(objective.eta(rows.x, rows.offset)).cpu()

    def _drop(self, index: int, layer: _DropoutNd, _: object, output: Tensor) -> Tensor:
        if index not in self.masks:
            drawn = torch.rand(self.num_masks, *output.shape[1:], generator=self.generator)
            self.masks[index] = (drawn >= layer.p) / (1 - layer.p)
        return output * self.masks[index][self.number].to(output)


def _layers(objective: Objective) -> list[_DropoutNd]:
    return [layer for layer in objective.model.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]
