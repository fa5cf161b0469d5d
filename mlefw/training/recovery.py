"""Goes back where training diverges: to the last good state, with half the learning rate."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlefw.loss.plain import Plain
from mlefw.objective.objective import Objective, rows_at_once
from mlefw.rows.rows import Rows
from mlefw.system.torch_internals import norms
from mlefw.training.averaging import Averaging

LARGEST = 1e12
"""No weight of a model that works on standardised features comes near it."""

_FACTOR = 10.0
"""An objective so many times its size above that before training is worse than any noise of steps."""

_SHARE = 0.1
"""Of the gradients of all training rows, from which on a row dominates."""
_MOST_NAMED = 5


@dataclass
class GoodState:
    """A state of training that an evaluation has followed.

    Attributes:
        step: number of steps that led to it.
        objective: the tensors of the objective's state.
        weights: those beside their average, where there is one.
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
        reference: the objective before training, in nats per row; None where it is not known, or not what is descended.
        epochs: in which training diverged, in order.
        rows: positions of training rows whose own gradients dominated then.
        is_waiting: whether training has gone back since the last evaluation, and takes no steps up to the next one.
        good: the good state; None where it is the one of the moment.
    """

    reference: float | None = None
    epochs: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    is_waiting: bool = False
    good: GoodState | None = None


class Recovery:
    """Keeps the last good state of a training, and restores it where a step makes the objective explode.

    From the step that diverges to the next evaluation there are no further steps, so that results do not depend on how
    many steps are handed over together.

    Args:
        most: how often training may go back (0: never).
        objective: in training.
        averaging: of its weights.
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
        # Another loss than the NLL has a scale of its own.
        if self.history.reference is None and type(self.objective.loss) is Plain and math.isfinite(value):
            self.history.reference = value

    def is_exploded(self, loss: float) -> bool:
        """Whether the mean loss of steps, or a weight, is beyond what a training that converges comes through."""
        reference = self.history.reference
        is_high = reference is not None and not loss <= reference + _FACTOR * max(1.0, abs(reference))
        return is_high or not largest(self.objective) < LARGEST

    @torch.no_grad()
    def keep(self, step: int, optimizer: Optimizer) -> None:
        """Keep the present state, after so many steps, as a good one."""
        weights = [] if self.averaging is None else self.averaging.state
        state = copy.deepcopy(optimizer.state_dict()["state"])
        self.history.good = GoodState(step, _copies(self.tensors), _copies(weights), state)

    @torch.no_grad()
    def go_back(self, epoch: int, rows: Rows, optimizer: Optimizer, scheduler: Any = None) -> None:
        """Restore the good state, halve the rate that the optimiser has now, and note the epoch and its rows."""
        good = self.history.good
        assert good is not None
        for tensor, value in zip(self.tensors, good.objective, strict=True):
            tensor.copy_(value)
        if self.averaging is not None:
            self.averaging.restore(good.weights)
        groups = optimizer.state_dict()["param_groups"]
        for group in groups:
            group |= {name: group[name] / 2 for name in ("lr", "initial_lr") if name in group}
        optimizer.load_state_dict({"state": copy.deepcopy(good.optimizer), "param_groups": groups})
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        known = dominating_rows(self.objective, rows)
        self.history.rows = list(dict.fromkeys([*self.history.rows, *known]))
        self.history.epochs.append(epoch)
        self.history.is_waiting = True

    def stored(self, step: int) -> dict[str, Any]:
        """The history in plain containers, for a checkpoint after so many steps."""
        content = dict(vars(self.history))
        good = self.history.good
        # What the checkpoint holds anyway is not stored twice.
        return content | {"good": None if good is None or good.step == step else dict(vars(good))}

    def restore(self, history: History, step: int, optimizer: Optimizer) -> None:
        """Take up a stored history, when all else is restored to what it was after so many steps."""
        if history.good is None and step and self.most:
            self.keep(step, optimizer)
            history.good = self.history.good
        self.history = history

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of the objective's state."""
        return [tensor.detach() for tensor in self.objective.state_dict().values()]


def largest(objective: Objective) -> float:
    """The largest absolute value among all parameters; NaN where one is not a number."""
    parameters = [p.detach() for p in objective.parameters() if p.numel()]
    return float(torch.stack(norms(parameters, math.inf)).max())


def dominating_rows(objective: Objective, rows: Rows) -> list[int]:
    """Positions of at most five rows, each of which makes a tenth or more of the size of all rows' gradients.

    The size is that of the derivative of weight · NLL in what the network predicts, eta, in units of the head's `gain`.
    """
    sizes = []
    gain = objective.head.gain[: objective.head.eta_dim]
    for part in rows.blocks(rows_at_once(objective.head)):
        part = part.to(gain.device)
        leaf = objective.eta(part.x, part.offset).detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((part.weight * objective.head.nll(leaf, part.y)).sum(), leaf)
        sizes.append((slope * gain).norm(dim=-1))
    size = torch.cat(sizes).nan_to_num(nan=math.inf, posinf=math.inf)
    first = size.argsort(descending=True)[:_MOST_NAMED]
    return [int(k) for k in first if not size[k] < _SHARE * size.sum()]


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]
