"""The gradient of the objective on a batch, replayed from a tape where that is safe."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlefw.objective import Objective
from mlefw.rows import Batch, Rows
from mlefw.tape import NotReplayableError, Tape

_MAX_TAPES = 16
"""More shapes than this are no regime's doing."""


class Gradient:
    """Loss and clipped gradient as kernels alone: the numbers of autograd bit for bit, in a third of the time.

    A tape holds for one shape of batch. It is recorded of networks, heads and priors whose code is known to depend on
    nothing but their tensors: those of torch and mlefw, and others with a class attribute `replayable = True`.

    Args:
        objective: whose trainable parameters get the gradient.
        compile: hand each tape to the compiler of torch.
    """

    def __init__(self, objective: Objective, compile: bool = False) -> None:
        self.objective, self.compile = objective, compile
        self.is_replayable = all(_is_replayable(module) for module in objective.modules())
        self.tapes: dict[object, Tape] = {}
        self.trainable: list[nn.Parameter] = []

    def __call__(self, batch: Batch, clip_norm: float) -> Tensor | None:
        """Leave the gradient with the parameters; the loss, detached. None where no tape can be had."""
        if not self.is_replayable:
            return None
        x, y = batch.rows.x, batch.rows.y
        key = (x.shape, x.dtype, x.device, y.shape, batch.scale, clip_norm, batch.standardized)
        found = self._record(key, batch, clip_norm) if key not in self.tapes else self.tapes[key](*batch.rows)
        if found is None:
            return None
        loss, *gradients = found
        for p, gradient in zip(self.trainable, gradients, strict=True):
            p.grad = gradient
        return loss

    def _record(self, key: object, batch: Batch, clip_norm: float) -> list[Tensor] | None:
        trainable = self.trainable = [p for p in self.objective.parameters() if p.requires_grad and p.numel()]

        def descend(*columns: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                loss = self.objective.descent(batch._replace(rows=Rows(*columns)))
                gradients = torch.autograd.grad(loss, trainable)
            # The optimisers' fused kernels go through both in the order of memory.
            aligned = [
                gradient if gradient.stride() == p.stride() else torch.empty_like(p).copy_(gradient)
                for p, gradient in zip(trainable, gradients, strict=True)
            ]
            if clip_norm > 0:
                clip(aligned, clip_norm)
            return [loss.detach(), *aligned]

        state = torch.get_rng_state()
        try:
            tape = Tape(descend, batch.rows)
        except (NotReplayableError, RuntimeError):
            # Autograd will say what there is to say, from the same random state.
            self.is_replayable = False
            torch.set_rng_state(state)
            return None
        if self.compile:
            tape.compile()
        if len(self.tapes) >= _MAX_TAPES:
            self.tapes.clear()
        self.tapes[key] = tape
        return tape.taken()


def clip(gradients: Sequence[Tensor], bound: float) -> None:
    """Scale the gradients in place so that their joint norm is at most `bound`; no value reaches the host."""
    if not gradients:
        return
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (bound / (total + 1e-6)).clamp(max=1.0))


def _is_replayable(module: nn.Module) -> bool:
    known = type(module).__module__.split(".")[0] in ("torch", "mlefw")
    return bool(getattr(module, "replayable", known))
