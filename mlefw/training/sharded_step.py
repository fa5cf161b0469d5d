"""The training step of a network whose parameters are split over the processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlefw.distributed import ranks, sharding
from mlefw.distribution.precision import promote
from mlefw.objective.objective import Objective
from mlefw.rows.batch import Batch
from mlefw.rows.rows import padded_blocks
from mlefw.system.torch_internals import scale_
from mlefw.training.step import Step


class ShardedStep(Step):
    """A training step by autograd, in which all processes pass through the network equally often.

    Each pass gathers parameters from all processes, so that one with fewer rows takes part with passes of no rows. The
    gradients of split parameters are summed by `fully_shard`, and those of the others here. Each process has the part
    of the penalty that belongs to its share of the weights.
    """

    def __init__(self, objective: Objective, clip_norm: float = 0.0, max_rows: int = 0, compile: bool = False) -> None:
        super().__init__(objective, clip_norm, max_rows, compile)
        # Nothing is recorded, and whole parameters would stay on a device for as long as they are referred to.
        self.gradient.trainable = []

    def _step(
        self,
        batch: Batch,
        wrapper: Any,
        optimizer: Optimizer,
        backward: Callable[[Tensor], None],
        count: int,
    ) -> Tensor:
        wrapper.zero_grad()
        loss = self._sum(self._accumulate(batch, backward))
        if self.clip_norm > 0:
            self._clip()
        with sharding.mixed(self.objective.parameters()):
            wrapper.step(closure=lambda: loss)
        return loss

    def _accumulate(self, batch: Batch, backward: Callable[[Tensor], None]) -> Tensor:
        """Add the gradients of penalty and fit, the fit a slice of rows at a time; the loss on this process."""
        penalty = self.objective.smooth_penalty()
        if penalty.requires_grad:
            backward(penalty)
        total = penalty.detach()
        size = max(1, self.max_rows or batch.rows.num_rows)
        num_passes = 1
        if self.max_rows > 0:
            most = torch.tensor(max(1, -(-batch.rows.num_rows // size)), device=total.device)
            ranks.maximum(most)
            num_passes = int(most)
        for rows in padded_blocks(batch.rows, size, num_passes):
            part = self.objective.descent_fit(batch._replace(rows=rows))
            backward(part)
            total = total + part.detach()
        return total

    def _sum(self, loss: Tensor) -> Tensor:
        """Add up losses, and gradients of parameters that are not split, over the processes."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad and not sharding.is_sharded(p)]
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        loss = promote(loss).clone()
        ranks.all_reduce([loss, *(p.grad for p in parameters if p.grad is not None)])
        return loss

    def _clip(self) -> None:
        """Scale all gradients so that their joint norm, over all processes, is at most `clip_norm`."""
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        factor = (self.clip_norm / (sharding.joint_norm(gradients) + 1e-6)).clamp(max=1.0)
        scale_([sharding.own(gradient) for gradient in gradients], factor)
