"""A training step compiled into one graph by torch.compile."""

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
from mlefw.training.rates import Rates

_MIN_USES = 100
"""Uses of a batch shape before its step is compiled, which takes seconds; a short last batch is rare."""

_COMPILE_OPTIONS: dict[str, Any] = {"size_asserts": False, "guard_filter_fn": lambda guards: [False] * len(guards)}
"""No checks of sizes and of Python state at each call: they take a fifth of a step, and equal keys imply them."""

_numbers = itertools.count()

StepFunction = Callable[..., Tensor]


class CompiledStep:
    """Forward pass, likelihood, penalty, backward pass, clipping and the optimiser's arithmetic in one function.

    There is one function for each batch shape that is frequent. Parameters and the state of the optimiser change in
    place, so that compiled and other steps may alternate. The learning rate may change at any time.

    Args:
        gradient: the recorded gradients (`Tape`) of the objective, which are compiled together with the optimiser.
    """

    def __init__(self, gradient: Gradient) -> None:
        self.gradient, self.is_available = gradient, True
        self.steps: dict[object, StepFunction] = {}
        self.rates = Rates(torch.float64)
        self.state: object = None

    def __call__(self, batch: Batch, clip_norm: float, optimizer: Optimizer) -> Tensor | None:
        """Take the step and return its loss, a detached scalar; None if there is no compiled step: nothing was done."""
        if has_step_hooks(optimizer):
            return None
        if optimizer.state is not self.state:
            # Another optimiser, or a restored one: compiled steps hold the tensors of the old state.
            self.steps, self.state = {}, optimizer.state
        shape = self.gradient.key(batch, clip_norm)
        key = (shape, *_graph_settings(optimizer))
        if key in self.steps:
            self.rates.fill(optimizer)
            with torch.inference_mode():
                return self.steps[key](*batch.rows)
        is_frequent = self.is_available and shape in self.gradient.tapes and self.gradient.uses[shape] >= _MIN_USES
        return self._compile_and_run(key, batch, optimizer) if is_frequent else None

    def _compile_and_run(self, key: Any, batch: Batch, optimizer: Optimizer) -> Tensor | None:
        """Compile a step and take it; a compiler that fails does so before it has changed any tensor."""
        try:
            self.rates.fill(optimizer)
            # A copy, since torch.compile removes entries from the dict that it is given.
            options = dict(_COMPILE_OPTIONS)
            run: StepFunction = torch.compile(
                self._step_function(key[0], optimizer), dynamic=False, fullgraph=True, options=options
            )
            with torch.inference_mode():
                loss = run(*batch.rows)
        except Exception as error:  # noqa: BLE001 - a compiler may fail in any way; training goes on without it
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warn(f"compile=true: no compiled step ({reason}); training goes on without it")
            self.is_available = False
            return None
        self.steps[key] = run
        return loss

    def _step_function(self, shape: object, optimizer: Optimizer) -> StepFunction:
        """The step for one batch shape, not compiled yet: it maps the columns of a batch to the loss."""
        descend = self.gradient.tapes[shape].traceable()
        place: dict[int, tuple[dict[str, Any], Tensor]] = {}
        for group, rate in zip(optimizer.param_groups, self.rates.tensors, strict=True):
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

        # torch.compile caches by the code object, and remembers by its name which numbers have varied: names of their
        # own keep the steps of different batch shapes apart.
        step.__code__ = step.__code__.replace(co_name=f"step_{next(_numbers)}")
        return step


def _graph_settings(optimizer: Optimizer) -> list[Any]:
    """The settings of an optimiser that a graph holds as constants: all but the learning rate."""
    varying = ("params", "lr", "initial_lr")
    return [str(value) for group in optimizer.param_groups for name, value in group.items() if name not in varying]


def _adam(p: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], rate: Tensor) -> None:
    count = state["step"].add_(1).double()
    update_rules.adam(p, gradient, state["exp_avg"], state["exp_avg_sq"], count, rate, group)


def _sgd(p: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], rate: Tensor) -> None:
    update_rules.sgd(p, gradient, state.get("momentum_buffer"), rate, group)
