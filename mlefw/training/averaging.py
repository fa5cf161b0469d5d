"""Averaging of weights during training: the tensors of a model hold either the weights or their average."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.average.base import Average
from mlefw.distributed import sharding
from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.system.torch_internals import copy_, lerp_


class Averaging:
    """Keeps an average of the weights, updated after each optimiser step.

    During a block of steps the tensors hold the weights, and between blocks their average. So an evaluation, a callback
    or a checkpoint sees the average, while optimisers and recorded steps find the weights at the memory addresses that
    they were built with.

    Args:
        average: the rule for the share of the average that a step replaces by the present weights.
        tensors: floating-point tensors that training changes in place.
        sparse: boolean masks shaped like the tensors, or none at all: true for entries under a prior that makes weights
            exactly zero (l1). Where such a weight is zero, its average is set to zero, too.
    """

    def __init__(self, average: Average, tensors: Sequence[Tensor], sparse: Sequence[Tensor] = ()) -> None:
        self.average, self.tensors = average, list(tensors)
        # (position, entries whose average is kept even where the weight is zero), of tensors with any such weight.
        self.dense = [(k, ~mask) for k, mask in enumerate(sparse) if bool(mask.any())]
        self.held: list[Tensor] = []
        """The other version of the tensors: the weights between blocks of steps, the average within a block."""

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap weights and average: call it before a block of steps and after it."""
        if not self.held:
            # Before the first step the average equals the weights.
            self.held = [tensor.clone() for tensor in self.tensors]
            return
        shown = [tensor.clone() for tensor in self.tensors]
        copy_(_own(self.tensors), _own(self.held))
        copy_(_own(self.held), _own(shown))

    @torch.no_grad()
    def update(self, progress: float, length: float) -> None:
        """Move the average towards the weights that a step has led to.

        Args:
            progress: epochs since the start of training, this step included.
            length: epochs that one step takes: 1 / (steps of the epoch).

        Raises:
            UsageError: the rule returns a share that is not above 0 and at most 1.
        """
        share = self.average.share(progress, length)
        if not 0 < share <= 1:
            name = type(self.average).__name__
            raise UsageError(f"{name}.share({progress:g}, {length:g}) is {share!r}: expected above 0 and at most 1")
        lerp_(_own(self.held), _own(self.tensors), share)
        for k, dense in self.dense:
            self.held[k].mul_((self.tensors[k] != 0) | dense)

    @property
    def state(self) -> list[Tensor]:
        """Between blocks of steps: the weights from which the next step starts; empty before the first step."""
        return self.held

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        """Continue a stored training, whose average the tensors hold already.

        Args:
            state: its weights, as `state` returned them; empty for a training before its first step.
        """
        pairs = zip(state, self.tensors, strict=bool(state))
        self.held = [sharding.placed(value.to(t.device, t.dtype), t).clone() for value, t in pairs]


def averaged_tensors(objective: Objective) -> list[Tensor]:
    """The trainable parameters of an objective, and the running statistics of its network."""
    running = [buffer for buffer in objective.model.model.buffers() if buffer.is_floating_point()]  # type: ignore[union-attr]
    return [*(p for p in objective.parameters() if p.requires_grad), *running]


def _own(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The shares of this process, which the kernels for many tensors need where some are split and others whole."""
    return [sharding.own(tensor) for tensor in tensors]
