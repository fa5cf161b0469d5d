"""The optimisers of all members in one step, each at its own rate: torch's formulas on the rows of a matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from mlefw.sweep.population.stacked import Stack


class Vectorised:
    """Clips, steps, and applies the proximal map of the prior, as `Step` does with one network.

    Args:
        stack: whose rows are changed.
        optimizers: one of each member, all of one class, with equal settings but for the rate.
        clip_norm: bound on each member's gradient norm (0: none).
    """

    def __init__(self, stack: Stack, optimizers: Sequence[Optimizer], clip_norm: float) -> None:
        self.stack, self.optimizers, self.clip_norm = stack, list(optimizers), clip_norm
        self.settings: dict[str, Any] = self.optimizers[0].param_groups[0]
        self.is_sgd = isinstance(self.optimizers[0], SGD)
        self.num_steps = 0
        self.first = torch.zeros_like(stack.flat)
        self.second = torch.zeros_like(stack.flat)
        self.is_proximal = bool((stack.rate > 0).any())
        self.refresh()

    def refresh(self) -> None:
        """Take over the rates, which schedulers change."""
        rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.lr = torch.tensor(rates, dtype=torch.float64).unsqueeze(1)

    def keep(self, index: Tensor) -> None:
        """Go on with some of the members."""
        self.optimizers = [self.optimizers[i] for i in index.tolist()]
        self.first, self.second = self.first[index], self.second[index]
        self.refresh()

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Take one step with each member's gradient."""
        if self.clip_norm > 0:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        self.num_steps += 1
        length = self._sgd(gradient) if self.is_sgd else self._adam(gradient)
        if self.is_proximal:
            flat, threshold = self.stack.flat, length * self.stack.rate
            flat.copy_(torch.where(self.stack.is_weight, flat.sign() * (flat.abs() - threshold).clamp(min=0), flat))

    def _sgd(self, gradient: Tensor) -> Tensor:
        """The step; how far a constant unit gradient would move each entry."""
        flat, lr = self.stack.flat, self.lr.to(self.stack.flat.dtype)
        momentum, dampening = self.settings["momentum"], self.settings["dampening"]
        gradient = gradient + self.settings["weight_decay"] * flat if self.settings["weight_decay"] else gradient
        if not momentum:
            flat.sub_(lr * gradient)
            return lr
        if self.num_steps == 1:
            self.first.copy_(gradient)
        else:
            self.first.mul_(momentum).add_(gradient, alpha=1 - dampening)
        flat.sub_(lr * (gradient + momentum * self.first if self.settings["nesterov"] else self.first))
        return lr * (1 - dampening) / (1 - momentum)

    def _adam(self, gradient: Tensor) -> Tensor:
        flat, decay = self.stack.flat, self.settings["weight_decay"]
        beta1, beta2 = self.settings["betas"]
        if decay and isinstance(self.optimizers[0], AdamW):
            flat.mul_((1 - self.lr * decay).to(flat.dtype))
        elif decay:
            gradient = gradient + decay * flat
        self.first.lerp_(gradient, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction = 1 - beta2**self.num_steps
        scale = (self.second.sqrt() / correction**0.5).add_(self.settings["eps"])
        flat.sub_((self.lr / (1 - beta1**self.num_steps)).to(flat.dtype) * self.first / scale)
        return self.lr.to(flat.dtype) / scale if self.is_proximal else scale

    def store(self, optimizer: Optimizer) -> None:
        """Put a member's state into its own optimiser, as if that had taken the steps."""
        row = next(i for i, one in enumerate(self.optimizers) if one is optimizer)
        first, second = (moment[row].split(self.stack.sizes) for moment in (self.first, self.second))
        for i, p in enumerate(optimizer.param_groups[0]["params"]):
            if not p.numel():
                continue
            held = first[i].view(p.shape).clone()
            if not self.is_sgd:
                state = {"step": torch.tensor(float(self.num_steps)), "exp_avg": held}
                optimizer.state[p] = {**state, "exp_avg_sq": second[i].view(p.shape).clone()}
            elif self.settings["momentum"]:
                optimizer.state[p] = {"momentum_buffer": held}
