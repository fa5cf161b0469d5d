"""A step of training as one graph that the compiler of torch has fused."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from mlefw.objective.gradient import Gradient
from mlefw.rows.batch import Batch
from mlefw.system.torch_internals import has_step_hooks
from mlefw.system.warning import warn
from mlefw.training import update_rules

_WORTH = 100
"""Uses of a tape after which its step is compiled: the ragged batch that ends an epoch is seldom worth it."""

_UNASKED: dict[str, Any] = {"size_asserts": False, "guard_filter_fn": lambda guards: [False] * len(guards)}
"""What it would make sure of at each call, in a fifth of the time of a step, the key of a step says already."""

_number = itertools.count()

Run = Callable[..., Tensor]


class CompiledStep:
    """Forward pass, likelihood, penalty, backward pass, clipping and the optimiser's arithmetic in one function.

    There is one for each shape of batch that comes often. Parameters and the optimiser's state change in place, and
    where they lie, so that a step taken otherwise may come before or after. The learning rate may change at any time.

    Args:
        gradient: whose tapes are compiled.
    """

    def __init__(self, gradient: Gradient) -> None:
        self.gradient, self.works = gradient, True
        self.steps: dict[object, Run] = {}
        self.rates: list[Tensor] = []
        self.known: list[float] = []
        self.state: object = None

    def __call__(self, batch: Batch, clip_norm: float, optimizer: Optimizer) -> Tensor | None:
        """Take the step and return its loss, detached; None where it is not compiled, and nothing was done."""
        if has_step_hooks(optimizer):
            return None
        if optimizer.state is not self.state:
            # Another optimiser, or one that was loaded: the tensors are others.
            self.steps, self.state = {}, optimizer.state
        shape = self.gradient.key(batch, clip_norm)
        key = (shape, *_fixed(optimizer))
        if key in self.steps:
            self._follow(optimizer)
            with torch.inference_mode():
                return self.steps[key](*batch.rows)
        is_worth = self.works and shape in self.gradient.tapes and self.gradient.uses[shape] >= _WORTH
        return self._first(key, batch, optimizer) if is_worth else None

    def _first(self, key: Any, batch: Batch, optimizer: Optimizer) -> Tensor | None:
        """Compile, and take the first step; a compiler that fails does so before anything has changed."""
        try:
            self._follow(optimizer)
            # A copy: torch takes out of it what it has read.
            options = dict(_UNASKED)
            run: Run = torch.compile(self._whole(key[0], optimizer), dynamic=False, fullgraph=True, options=options)
            with torch.inference_mode():
                loss = run(*batch.rows)
        except Exception as error:  # noqa: BLE001 - whatever ails a compiler, the training does not depend on it
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warn(f"compile=true: no compiled step ({reason}); training goes on without it")
            self.works = False
            return None
        self.steps[key] = run
        return loss

    def _follow(self, optimizer: Optimizer) -> None:
        """Hold the learning rates of now in tensors, whose values are no part of a graph."""
        now = [float(group["lr"]) for group in optimizer.param_groups]
        if now != self.known:
            if len(now) != len(self.rates):
                device = self.gradient.trainable[0].device
                self.rates = [torch.zeros((), dtype=torch.float64, device=device) for _ in now]
            for rate, value in zip(self.rates, now, strict=True):
                rate.fill_(value)
            self.known = now

    def _whole(self, shape: object, optimizer: Optimizer) -> Run:
        descend = self.gradient.tapes[shape].traceable()
        place: dict[int, tuple[dict[str, Any], Tensor]] = {}
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            if group.get("amsgrad") or group["maximize"]:
                raise NotImplementedError("optimizer.amsgrad and optimizer.maximize are not compiled")
            place |= {id(p): (group, rate) for p in group["params"]}
        update = _sgd if isinstance(optimizer, SGD) else _adam
        parts = [(p, optimizer.state[p], *place[id(p)]) for p in self.gradient.trainable]

        def step(*columns: Tensor) -> Tensor:
            loss, *gradients = descend(*columns)
            for gradient, (p, state, group, rate) in zip(gradients, parts, strict=True):
                update(p, gradient, state, group, rate)
            return loss

        # The compiler files what it makes under the code of a function, and what it has seen to vary under its name.
        step.__code__ = step.__code__.replace(co_name=f"step_{next(_number)}")
        return step


def _fixed(optimizer: Optimizer) -> list[Any]:
    """What is a part of the graph: all settings but the learning rate."""
    varying = ("params", "lr", "initial_lr")
    return [str(value) for group in optimizer.param_groups for name, value in group.items() if name not in varying]


def _adam(p: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], rate: Tensor) -> None:
    count = state["step"].add_(1).double()
    update_rules.adam(p, gradient, state["exp_avg"], state["exp_avg_sq"], count, rate, group)


def _sgd(p: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], rate: Tensor) -> None:
    update_rules.sgd(p, gradient, state.get("momentum_buffer"), rate, group)
