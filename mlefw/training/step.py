"""The only place that changes weights: one optimiser step on one batch."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from mlefw.distributed import ranks
from mlefw.distribution.precision import promote
from mlefw.errors import NumericalError, UsageError
from mlefw.objective.gradient import Gradient, clip
from mlefw.objective.objective import Objective
from mlefw.objective.tape import Tape
from mlefw.rows.batch import Batch
from mlefw.system.torch_internals import has_step_hooks
from mlefw.training import update_rules
from mlefw.training.compiled_step import CompiledStep
from mlefw.training.rates import Rates

_REPLAYABLE = (SGD, Adam, AdamW)
"""Optimisers whose step depends on gradients, state and settings alone, so that its kernels can be recorded."""

_LEAST_KINK = 1e-10
"""Smallest rounding of the kinks of a density, in nats per row: what it may add to the NLL in the end."""


class SteppingOptimizer(Protocol):
    """What a step needs of an optimiser: Lightning's wrapper or a bare one."""

    def step(self, closure: Callable[[], Tensor]) -> Any:
        """One step from the loss and gradients of `closure`."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


class Step:
    """One training step: forward, backward in slices, clipping, the optimiser, and the prior's proximal map.

    Args:
        objective: what is descended; its parameters are changed.
        clip_norm: bound on the Euclidean norm of the gradient (0: none).
        max_rows: most rows of one backward pass (0: no limit); slices add up to the gradient of the whole batch.
        compile: whether torch.compile fuses the kernels of a step; if it fails, there is a warning and no fusing.
    """

    def __init__(self, objective: Objective, clip_norm: float = 0.0, max_rows: int = 0, compile: bool = False) -> None:
        self.objective, self.clip_norm, self.max_rows = objective, clip_norm, max_rows
        self.gradient = Gradient(objective)
        self.compiled = CompiledStep(self.gradient) if compile else None
        self.updates: dict[object, Tape] = {}
        self.rates = Rates()
        self.seen: tuple[Any, ...] = ()

    def __call__(
        self,
        batch: Batch,
        wrapper: SteppingOptimizer | Optimizer,
        optimizer: Optimizer,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
        count: int = 0,
    ) -> Tensor:
        """Take one step; the smooth part of the objective on the batch before it, a detached scalar on its device.

        A line search stalls at the kinks of a density that is not smooth (Laplace), so L-BFGS sees them rounded off,
        half as much in each step.

        Args:
            batch: the rows of the step.
            wrapper: Lightning's wrapper of the optimiser, which counts steps, or the optimiser itself.
            optimizer: the optimiser without the wrapper.
            backward: computes gradients from a scalar loss; Lightning's own scales it in mixed precision.
            count: number of steps taken before.
        """
        loss = self._replay(batch, optimizer) if wrapper is optimizer else None
        if loss is None:
            loss = self._step(batch, wrapper, optimizer, backward, count)
        if not self.objective.prior.smooth:
            self._prox(optimizer)
        return loss

    def forget(self) -> None:
        """Discard recorded optimiser steps: a restored optimiser has its state in other tensors."""
        self.updates, self.seen = {}, ()

    @torch.no_grad()
    def _replay(self, batch: Batch, optimizer: Optimizer) -> Tensor | None:
        """Take the step by replaying recorded kernels; its loss, or None if that is not possible: nothing was done."""
        if type(optimizer) not in _REPLAYABLE or 0 < self.max_rows < batch.rows.num_rows:
            return None
        batch = batch._replace(rows=batch.rows.gathered())
        if self.compiled is not None and (loss := self.compiled(batch, self.clip_norm, optimizer)) is not None:
            return loss
        found = self.gradient(batch, self.clip_norm)
        if found is None:
            return None
        loss, *gradients = found
        # Recorded steps read the learning rate from a tensor, unless that would round it.
        is_read = self.rates.fill(optimizer)
        settings = (id(optimizer), is_read, *_settings(optimizer, varying=("lr",) if is_read else ()))
        if settings in self.updates:
            self.updates[settings](*gradients)
            return loss

        def update(*gradients: Tensor) -> list[Tensor]:
            for p, gradient in zip(self.gradient.trainable, gradients, strict=True):
                p.grad = gradient
            optimizer.step()
            return []

        # Not recorded: an optimiser with hooks; one that is not fused, which reads its step count on the host; the
        # first step, which creates the optimiser's state; and settings that differ from those of the step before.
        is_fused = all(group.get("fused") for group in optimizer.param_groups)
        hooks = has_step_hooks(optimizer)
        if is_fused and settings == self.seen and not hooks:
            with self.rates.read_by(optimizer) if is_read else nullcontext():
                self.updates = {settings: Tape(update, gradients)}
        else:
            update(*gradients)
            self.seen = settings
        optimizer.zero_grad()
        return loss

    def _step(
        self,
        batch: Batch,
        wrapper: Any,
        optimizer: Optimizer,
        backward: Callable[[Tensor], None],
        count: int,
    ) -> Tensor:
        """Take the step by autograd; its loss. Arguments as in `__call__`."""
        if isinstance(optimizer, torch.optim.LBFGS):
            self.objective.head.kink = max(0.5**count, _LEAST_KINK)

        def closure() -> Tensor:
            wrapper.zero_grad()
            loss = self._accumulate(batch, backward)
            if ranks.world_size() > 1:
                loss = self._sum(loss)
            if self.clip_norm > 0:
                clip([p.grad for p in self.objective.parameters() if p.grad is not None], self.clip_norm)
            losses.append(loss)
            return loss

        losses: list[Tensor] = []
        wrapper.step(closure=closure)
        return losses[0]

    def _accumulate(self, batch: Batch, backward: Callable[[Tensor], None]) -> Tensor:
        """Add the gradients of penalty and fit, the fit a slice of rows at a time; the loss on this process."""
        size = self.max_rows if 0 < self.max_rows < batch.rows.num_rows else batch.rows.num_rows
        if size == batch.rows.num_rows and ranks.world_size() == 1:
            loss = self.objective.descent(batch)
            backward(loss)
            return loss.detach()
        penalty = self.objective.smooth_penalty()
        # Losses and gradients are summed over the processes: the penalty counts in the first one alone.
        if ranks.rank() > 0:
            penalty = torch.zeros_like(penalty.detach())
        if penalty.requires_grad:
            backward(penalty)
        total = penalty.detach()
        for rows in batch.rows.blocks(max(1, size)):
            part = self.objective.descent_fit(batch._replace(rows=rows))
            backward(part)
            total = total + part.detach()
        return total

    def _sum(self, loss: Tensor) -> Tensor:
        """Add up losses and gradients over the processes, each of which has a part of the batch."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        # A process whose part is empty may have no gradients, but has to take part in the sum.
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        loss = promote(loss).clone()
        ranks.all_reduce([loss, *(p.grad for p in parameters if p.grad is not None)])
        return loss

    @torch.no_grad()
    def _prox(self, optimizer: Optimizer) -> None:
        """Apply the proximal map of the prior's non-smooth part to the weights, with the optimiser's step length."""
        weights = {id(w) for w in self.objective.weights()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) in weights:
                    p.copy_(self.objective.prior.prox(p, step_length(optimizer, group, p) / self.objective.population))


def _settings(optimizer: Optimizer, varying: tuple[str, ...]) -> list[Any]:
    """The settings of all parameter groups but those that vary; a tuple comes back from a checkpoint as a list."""
    left_out = ("params", *varying)
    values = (value for group in optimizer.param_groups for name, value in group.items() if name not in left_out)
    return [tuple(value) if isinstance(value, list) else value for value in values]


def step_length(optimizer: Optimizer, group: dict[str, Any], p: Tensor) -> Tensor | float:
    """By how much a constant unit gradient would move each entry of p: a scalar, or shaped like p.

    A proximal step of this length has the minimiser of the objective as its fixed point.

    Raises:
        UsageError: the optimiser's step length is not known here.
    """
    if isinstance(optimizer, SGD):
        return group["lr"] * update_rules.sgd_gain(group)
    if isinstance(optimizer, Adam | AdamW) and not group["amsgrad"]:
        state = optimizer.state[p]
        if not state:
            return 0.0
        return group["lr"] / update_rules.adam_divisor(state["exp_avg_sq"], state["step"], group)
    raise UsageError(
        f"a prior with exact zeros needs the step length of the optimiser, which is not known for "
        f"{type(optimizer).__name__}: use optimizer=sgd, adam or adamw, or prior=l2"
    )


def divergence_advice(clip_norm: float) -> str:
    """What to try after divergence; `step.clip_norm` is not proposed where it is at most 1 already."""
    return "Try a smaller optimizer.lr" + ("" if 0 < clip_norm <= 1 else ", or step.clip_norm=1")


def diverged(step: int, epoch: int, cause: str, clip_norm: float) -> NumericalError:
    """The error for a step whose objective is not finite.

    Args:
        step: number of the step over all epochs, from 1.
        epoch: the epoch of the step, from 0.
        cause: what is not finite after the step, in words; empty where that is not known.
        clip_norm: the setting `step.clip_norm`.
    """
    return NumericalError(
        f"training diverged: the objective was not finite at step {step} (epoch {epoch})"
        f"{cause and f'; after it {cause}'}. {divergence_advice(clip_norm)}"
    )


def check_optimizer(optimizer: Optimizer, objective: Objective) -> None:
    """Refuse an optimiser that would not descend the objective with this prior.

    Raises:
        UsageError: decoupled or coupled weight decay beside a prior; a line search or an unknown step length
            beside a prior that is not smooth.
    """
    decay = [group["weight_decay"] for group in optimizer.param_groups if group.get("weight_decay")]
    if decay and not objective.prior.flat:
        raise UsageError(
            f"optimizer.weight_decay={decay[0]} beside a prior: the prior already is the weight decay, and decoupled "
            f"decay is not MAP estimation. Set optimizer.weight_decay=0, or prior=none"
        )
    if not objective.prior.smooth:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UsageError(
                "optimizer=lbfgs cannot descend a prior that is not smooth (l1, elastic_net): "
                "use optimizer=adam or sgd, or prior=l2"
            )
        step_length(optimizer, optimizer.param_groups[0], next(iter(objective.parameters())))
