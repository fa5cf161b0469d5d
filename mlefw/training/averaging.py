"""The weights of a training beside their average, of which the objective holds one at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.average.base import Average
from mlefw.errors import UsageError
from mlefw.system.torch_internals import copy_, lerp_


class Averaging:
    """Updates an average after each step; tensors hold the weights within a block of steps, and the average outside.

    So whatever looks at the tensors between steps (an evaluation, a callback, a checkpoint) sees the average, and
    optimisers and recorded steps find the weights in the memory that they know.

    Args:
        average: how much of the average each step replaces.
        tensors: floating-point tensors that training changes in place.
        sparse: masks, one for each tensor or none at all, of the entries that are exactly zero in the average wherever
            they are in the weights, as a prior that is not smooth (l1) has them.
    """

    def __init__(self, average: Average, tensors: Sequence[Tensor], sparse: Sequence[Tensor] = ()) -> None:
        self.average, self.tensors = average, list(tensors)
        self.dense = [(k, ~mask) for k, mask in enumerate(sparse) if bool(mask.any())]
        self.held: list[Tensor] = []
        """What the tensors do not hold now: outside of steps the weights, within them the average."""

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the weights into the tensors before a block of steps, and the average after it."""
        if not self.held:
            # Before the first step the weights are their average.
            self.held = [tensor.clone() for tensor in self.tensors]
            return
        shown = [tensor.clone() for tensor in self.tensors]
        copy_(self.tensors, self.held)
        copy_(self.held, shown)

    @torch.no_grad()
    def update(self, progress: float, length: float) -> None:
        """Take the weights after a step into the average.

        Raises:
            UsageError: the share of the weights is none.

        Args:
            progress: epochs since the start, with this step.
            length: of the step in epochs.
        """
        share = self.average.share(progress, length)
        if not 0 < share <= 1:
            name = type(self.average).__name__
            raise UsageError(f"{name}.share({progress:g}, {length:g}) is {share!r}: expected above 0 and at most 1")
        lerp_(self.held, self.tensors, share)
        for k, dense in self.dense:
            self.held[k].mul_((self.tensors[k] != 0) | dense)

    @property
    def state(self) -> list[Tensor]:
        """The weights from which the next step starts, outside of a block of steps; empty before the first one."""
        return self.held

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        """Take up the weights of a stored training, whose average the tensors hold; none before its first step."""
        self.held = [value.to(tensor).clone() for value, tensor in zip(state, self.tensors, strict=bool(state))]
