"""The step of the optimisers of all members at once, each at its own learning rate."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from mlefw.prior.base import soft_threshold
from mlefw.sweep.population.stacked import Stack
from mlefw.training import update_rules


class StackedOptimiser:
    """Clips gradients, steps, and applies the proximal map of the prior, as `Step` does with one network.

    Args:
        stack: the parameters of all members, which the steps change.
        optimizers: torch's optimiser of each member, all of one class, with equal settings but for the learning rate
            and the weight decay.
        clip_norms: bound on the norm of the gradient of each member (0: none).
    """

    def __init__(self, stack: Stack, optimizers: Sequence[Optimizer], clip_norms: Sequence[float]) -> None:
        self.stack, self.optimizers = stack, list(optimizers)
        bounds = [bound if bound > 0 else math.inf for bound in clip_norms]
        self.clips = any(math.isfinite(bound) for bound in bounds)
        self.clip_norm = self._column(bounds, stack.flat.dtype)
        self.settings: dict[str, Any] = self.optimizers[0].param_groups[0]
        self.decays = any(optimizer.param_groups[0]["weight_decay"] for optimizer in self.optimizers)
        self.is_sgd = isinstance(self.optimizers[0], SGD)
        self.num_steps = 0
        # Moments by torch's names, each (M, num_parameters).
        moments = () if self.is_sgd else ("exp_avg", "exp_avg_sq")
        self.state = {name: torch.zeros_like(stack.flat) for name in moments}
        self.is_proximal = bool((stack.rate > 0).any())
        self.refresh()

    def refresh(self) -> None:
        """Take over the learning rates of the optimisers, which schedulers change."""
        self.lr = self._column([optimizer.param_groups[0]["lr"] for optimizer in self.optimizers])
        self.decay = self._column([optimizer.param_groups[0]["weight_decay"] for optimizer in self.optimizers])

    def keep(self, index: Tensor) -> None:
        """Keep the members at these positions, and drop the others."""
        self.optimizers = [self.optimizers[i] for i in index.tolist()]
        self.state = {name: value[index] for name, value in self.state.items()}
        self.clip_norm = self.clip_norm[index]
        self.refresh()

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Take one step of each member with its gradient, a row of (M, num_parameters)."""
        if self.clips:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        self.num_steps += 1
        flat, settings = self.stack.flat, {**self.settings, "weight_decay": 0.0}
        if self.decays and self.settings.get("decoupled_weight_decay"):
            flat.mul_((1 - self.lr * self.decay).to(flat.dtype))
        elif self.decays:
            gradient = gradient + self.decay.to(flat.dtype) * flat
        if self.is_sgd:
            buffer = update_rules.sgd(flat, gradient, self.state.get("momentum_buffer"), self.lr, settings)
            self.state |= {} if buffer is None else {"momentum_buffer": buffer}
            if self.is_proximal:
                self._prox(self.lr.to(flat.dtype) * update_rules.sgd_gain(self.settings))
        else:
            moments = (self.state["exp_avg"], self.state["exp_avg_sq"])
            divisor = update_rules.adam(flat, gradient, *moments, self.num_steps, self.lr, settings)
            if self.is_proximal:
                self._prox(self.lr.to(flat.dtype) / divisor)

    def _column(self, values: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self.stack.flat.device).unsqueeze(1)

    def _prox(self, length: Tensor) -> None:
        """Apply the proximal map of each member's prior, for steps of a length of (M, 1) or (M, num_parameters)."""
        self.stack.flat.copy_(soft_threshold(self.stack.flat, length * self.stack.rate))

    def store(self, optimizer: Optimizer) -> None:
        """Put a member's moments into its own optimiser, as if that one had taken the steps."""
        row = next(i for i, one in enumerate(self.optimizers) if one is optimizer)
        objective = self.stack.objectives[row]
        parts = {name: self.stack.parts(value[row], objective) for name, value in self.state.items()}
        for i, p in enumerate(optimizer.param_groups[0]["params"]):
            if parts and p.numel():
                own = {name: values[i].clone() for name, values in parts.items()}
                # Each has a counter of its own, which torch adds to in place.
                optimizer.state[p] = own if self.is_sgd else {"step": torch.tensor(float(self.num_steps)), **own}
