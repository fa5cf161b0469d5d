"""The gradient of the objective on a batch, replayed from a recorded tape of kernels where that is safe."""

import torch
from torch import Tensor, nn

from mlefw.objective.objective import Objective
from mlefw.objective.tape import NotReplayableError, Tape
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.system import random_state
from mlefw.system.torch_internals import has_pass_hooks, norms, scale_

_MAX_TAPES = 16
"""Number of tapes, one for each batch shape, at which all are dropped."""


class Gradient:
    """Loss and clipped gradients by replaying recorded kernels: bit-identical to autograd, in a third of the time.

    A tape is valid for one batch shape. Only modules whose code depends on nothing but their tensors are recorded:
    those of torch and mlefw, and others with a class attribute `replayable = True`.

    Args:
        objective: the objective whose trainable parameters get the gradient.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trainable = [p for p in objective.parameters() if p.requires_grad and p.numel()]
        self.is_replayable = is_replayable(objective)
        self.tapes: dict[object, Tape] = {}
        self.uses: dict[object, int] = {}

    def __call__(self, batch: Batch, clip_norm: float) -> list[Tensor] | None:
        """The loss and the gradient of each of `trainable`, detached; None where the step cannot be recorded."""
        if not self.is_replayable:
            return None
        key = self.key(batch, clip_norm)
        if key not in self.tapes:
            return None if has_pass_hooks(self.objective) else self._record(key, batch, clip_norm)
        self.uses[key] += 1
        return self.tapes[key](*batch.rows)

    def key(self, batch: Batch, clip_norm: float) -> object:
        """Everything a tape holds fixed: shapes, types and devices of a batch, and Python numbers of the step."""
        x, y = batch.rows.x, batch.rows.y
        return (x.shape, x.dtype, x.device, y.shape, y.dtype, batch.scale, clip_norm, batch.standardized)

    def _record(self, key: object, batch: Batch, clip_norm: float) -> list[Tensor] | None:
        trainable = self.trainable

        def descend(*columns: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                loss = self.objective.descent(batch._replace(rows=Rows(*columns)))
                gradients = torch.autograd.grad(loss, trainable)
            # The optimisers' fused kernels walk gradient and parameter in memory order, so strides must agree.
            aligned = [
                gradient if gradient.stride() == p.stride() else torch.empty_like(p).copy_(gradient)
                for p, gradient in zip(trainable, gradients, strict=True)
            ]
            if clip_norm > 0:
                clip(aligned, clip_norm)
            return [loss.detach(), *aligned]

        state = random_state.capture()
        try:
            tape = Tape(descend, batch.rows)
        except (NotReplayableError, RuntimeError):
            # The caller computes this step by autograd instead, which raises any error of the model in plain words;
            # it starts from the random state before the recording.
            self.is_replayable = False
            random_state.restore(state)
            return None
        if len(self.tapes) >= _MAX_TAPES:
            self.tapes.clear()
        self.tapes[key], self.uses[key] = tape, 0
        return tape.taken()


def clip(gradients: list[Tensor], bound: float) -> None:
    """Scale the gradients in place so that their joint norm is at most `bound`, without a device synchronisation."""
    if not gradients:
        return
    total = torch.linalg.vector_norm(torch.stack(norms(gradients)))
    scale_(gradients, (bound / (total + 1e-6)).clamp(max=1.0))


def is_replayable(whole: nn.Module) -> bool:
    """Whether a module and all its submodules may be recorded: those of torch and mlefw unless they say otherwise."""
    return unrecordable(whole) is None


def unrecordable(whole: nn.Module) -> nn.Module | None:
    """The first part of a module that may not be recorded; None if all may."""
    return next((module for module in whole.modules() if not _may_be_recorded(module)), None)


def _may_be_recorded(module: nn.Module) -> bool:
    found: bool = getattr(module, "replayable", type(module).__module__.split(".")[0] in ("torch", "mlefw"))
    return found
