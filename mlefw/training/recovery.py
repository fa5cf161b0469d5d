"""Recovery of a training that diverges: it goes back to the last good state, with half the learning rate."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlefw.distributed import sharding
from mlefw.loss.plain import Plain
from mlefw.objective.objective import Objective, rows_at_once
from mlefw.rows.rows import Rows
from mlefw.system.torch_internals import norms
from mlefw.training.averaging import Averaging

MAX_WEIGHT = 1e12
"""A parameter beyond it means divergence: no weight on standardised features comes near it."""

_EXPLOSION = 10.0
"""The objective has exploded where it exceeds r + 10·max(1, |r|), with r its value before training."""

_DOMINANT_SHARE = 0.1
"""A row dominates if its gradient is at least this share of the sum of the sizes of all rows' gradients."""

_MOST_NAMED = 5
"""The most dominating rows that are named."""


@dataclass
class GoodState:
    """A state of training whose evaluation showed no divergence.

    Attributes:
        step: number of steps that led to it.
        objective: the tensors of the objective's `state_dict`, in its order.
        weights: `Averaging.state`: the weights, where the objective holds their average; else empty.
        optimizer: the state of the optimiser, without its settings.
    """

    step: int
    objective: list[Tensor]
    weights: list[Tensor]
    optimizer: dict[Any, Any]


@dataclass
class History:
    """How often a training has gone back.

    Attributes:
        reference: the NLL before training, in nats per row; None where it is not known, or another loss is trained.
        epochs: the epochs in which training diverged, from 0, in order.
        rows: positions of training rows whose gradients dominated when training diverged.
        is_waiting: whether training has gone back since the last evaluation, and takes no steps up to the next one.
        good: the last good state; None before the first one. In a checkpoint None where the checkpoint itself is it.
    """

    reference: float | None = None
    epochs: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    is_waiting: bool = False
    good: GoodState | None = None


class Recovery:
    """Keeps the last good state of a training, and restores it where a step makes the objective explode.

    From the step that diverges to the next evaluation no further steps are taken. So results do not depend on the
    number of steps in a chunk, at whose end divergence is noticed.

    Args:
        most: how often training may go back (0: never).
        objective: what is trained.
        averaging: the averaging of its weights; None for none.
    """

    def __init__(self, most: int, objective: Objective, averaging: Averaging | None = None) -> None:
        self.most, self.objective, self.averaging = most, objective, averaging
        self.history = History()

    @property
    def is_possible(self) -> bool:
        """Whether training may go back once more."""
        return self.history.good is not None and len(self.history.epochs) < self.most

    def start(self, value: float) -> None:
        """Note the objective before the first step, in nats per row."""
        # The mean loss of steps is compared with it; another loss than the NLL has a scale of its own.
        if self.history.reference is None and type(self.objective.loss) is Plain and math.isfinite(value):
            self.history.reference = value

    def is_exploded(self, loss: float) -> bool:
        """Whether the mean loss of some steps, in nats per row, or a parameter is beyond what convergence leads to.

        NaN counts as beyond: every comparison with it is false.
        """
        reference = self.history.reference
        is_high = reference is not None and not loss <= reference + _EXPLOSION * max(1.0, abs(reference))
        return is_high or not largest_weight(self.objective) < MAX_WEIGHT

    @torch.no_grad()
    def keep(self, step: int, optimizer: Optimizer) -> None:
        """Keep the present state, after `step` steps, as the good one."""
        weights = [] if self.averaging is None else self.averaging.state
        state = copy.deepcopy(optimizer.state_dict()["state"])
        self.history.good = GoodState(step, _copies(self.tensors), _copies(weights), state)

    @torch.no_grad()
    def go_back(self, epoch: int, rows: Rows, optimizer: Optimizer, scheduler: Any = None) -> None:
        """Restore the good state, halve the present learning rates, and note the epoch and the dominating rows.

        Args:
            epoch: in which training diverged, from 0.
            rows: the training rows.
            optimizer: the optimiser without Lightning's wrapper.
            scheduler: the learning-rate scheduler, if there is one.
        """
        good = self.history.good
        assert good is not None
        for tensor, value in zip(self.tensors, good.objective, strict=True):
            tensor.copy_(sharding.placed(value, tensor))
        if self.averaging is not None:
            self.averaging.restore(good.weights)
        groups = optimizer.state_dict()["param_groups"]
        for group in groups:
            group |= {name: group[name] / 2 for name in ("lr", "initial_lr") if name in group}
        sharding.load_optimizer(optimizer, {"state": copy.deepcopy(good.optimizer), "param_groups": groups})
        # Most schedulers compute each rate from these, and would undo the halving.
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        known = dominating_rows(self.objective, rows)
        self.history.rows = list(dict.fromkeys([*self.history.rows, *known]))
        self.history.epochs.append(epoch)
        self.history.is_waiting = True

    def stored(self, step: int) -> dict[str, Any]:
        """The history in plain containers, for a checkpoint after `step` steps."""
        content = dict(vars(self.history))
        good = self.history.good
        # A good state that is the state of the checkpoint itself is not stored twice.
        return content | {"good": None if good is None or good.step == step else dict(vars(good))}

    def restore(self, history: History, step: int, optimizer: Optimizer) -> None:
        """Take up a stored history, once objective and optimiser are restored to their state after `step` steps."""
        if history.good is None and step and self.most:
            self.keep(step, optimizer)
            history.good = self.history.good
        self.history = history

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of the objective's `state_dict`, in its order."""
        return [tensor.detach() for tensor in self.objective.state_dict().values()]


def largest_weight(objective: Objective) -> float:
    """The largest absolute value of all parameters; NaN if any is NaN."""
    parameters = [p.detach() for p in objective.parameters() if p.numel()]
    if objective.sharded:
        return float(torch.stack([sharding.largest(p) for p in parameters]).max())
    return float(torch.stack(norms(parameters, math.inf)).max())


def dominating_rows(objective: Objective, rows: Rows) -> list[int]:
    """Positions of at most five rows, each with a tenth or more of the summed sizes of all rows' gradients.

    The size of a row's gradient is ‖gain · ∂(weight · nll)/∂eta‖: of the derivative in the raw output of the network.
    """
    sizes = []
    gain = objective.head.gain[: objective.head.eta_dim]
    for part in rows.blocks(rows_at_once(objective.head, rows)):
        part = part.to(gain.device)
        leaf = objective.eta(part.x, part.offset).detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((part.weight * objective.head.nll(leaf, part.y)).sum(), leaf)
        sizes.append((slope * gain).reshape(part.num_rows, -1).norm(dim=-1))
    size = torch.cat(sizes).nan_to_num(nan=math.inf, posinf=math.inf)
    first = size.argsort(descending=True)[:_MOST_NAMED]
    return [int(k) for k in first if not size[k] < _DOMINANT_SHARE * size.sum()]


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]
