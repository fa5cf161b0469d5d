"""The multitask head: several targets, each with its own head."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from mlefw.distribution.joint import Joint, one_target
from mlefw.distribution.parameter import Limit
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start

_CANDIDATES = (0.0, 1.0, 0.5)


class _Support(constraints.Constraint):
    """Every target that is observed (not NaN) lies in the support of its head."""

    event_dim = 1

    def __init__(self, parts: Sequence[Head]) -> None:
        self.supports = tuple(part.support for part in parts)
        self.is_discrete = all(support.is_discrete for support in self.supports)

    def check(self, value: Tensor) -> Tensor:
        columns = zip(self.supports, value.unbind(-1), strict=True)
        return torch.stack([support.check(y) | y.isnan() for support, y in columns], -1).all(-1)


class JointHead(Head):
    """Base class of heads for several targets: y (*batch, num_targets), distributed as a `Joint` with `marginals`."""

    targets: tuple[str, ...]
    """Names of the targets, in the order of the columns of y."""

    @abstractmethod
    def set_column_units(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        """Set center, gain and floor from the mean and standard deviation of each target."""


class MultitaskHead(JointHead):
    """Several targets, independent given x, each with its own head and its own dispersion.

    Choose it for several targets that share the layers of a network, of one kind or of several: prices and classes,
    counts and yes or no. The NLL is the unweighted sum over the targets; with task weights it would not be a
    likelihood. For numbers whose noise is correlated choose `multivariate_gaussian`. A target that is missing in a
    row (NaN) adds nothing to the NLL of the row; means are still over all rows.

    Domain: each head's, for its target.
    Link: the predicted eta columns of the heads in turn, then their shared parameters in turn.
    NLL: the sum of the NLL of each head over the targets that are observed.

    Args:
        tasks: the head of each target by the name of its column, in the order of the columns of y.
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "multitask learning, without weights of the tasks"
    partial: ClassVar = True

    def __init__(self, tasks: Mapping[str, Head], start: Start = "null") -> None:
        if len(tasks) < 2:
            raise UsageError(f"head=multitask has a head for each target, here {len(tasks)}: expected at least two")
        if learns := [name for name, head in tasks.items() if head.learns]:
            raise UsageError(f"head.tasks.{learns[0]} computes its form from the targets: expected one target for it")
        named = [(name, head) for name, head in tasks.items()]
        super().__init__(
            tuple(f"{name}.{eta}" for name, head in named for eta in head.eta_names),
            tuple(f"{name}.{shared}" for name, head in named for shared in head.shared_names),
            start,
        )
        self.targets = tuple(tasks)
        # A tuple hides the heads from nn.Module: only the buffers and parameters of this head are trained, moved
        # between devices and stored.
        self.parts = tuple(tasks.values())
        self.event_shape = torch.Size([len(self.parts)])
        self.register_buffer("floor", torch.zeros(len(self.parts), dtype=torch.float64))
        self.support = _Support(self.parts)
        self.convex = all(part.convex for part in self.parts)
        self.unimodal = all(part.convex or part.unimodal for part in self.parts)
        self.stand_ins = tuple(_inside(part.support) for part in self.parts)
        self.spans = self._spans()
        self._copy_units()

    def set_column_units(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        """Set the units of each head whose target is a number."""
        for part, one, other in zip(self.parts, mean, spread, strict=True):
            if part.target == "numeric":
                part.set_units(one, other)
        self._copy_units()

    def column_limits(self) -> list[tuple[int, Limit]]:
        """The column in this head's complete eta and the limit of each parameter of the heads that has one."""
        return [
            (self.columns(index)[column], limit)
            for index, part in enumerate(self.parts)
            for column, limit in part.column_limits()
        ]

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,); −∞ for a column without a floor."""
        values = super().lowest()
        for index, part in enumerate(self.parts):
            part.floor = self.floor[index]
            values[self.columns(index)] = part.lowest().to(values.device)
        return values

    @property
    def shifts(self) -> tuple[tuple[int, list[int]], ...]:
        """The groups of each head in which a common shift changes no distribution, in the columns of this head."""
        return tuple(
            (predicted[reference], [predicted[column] for column in columns])
            for part, (predicted, _) in zip(self.parts, self.spans, strict=True)
            for reference, columns in part.shifts
        )

    def columns(self, index: int) -> list[int]:
        """The columns of a complete eta that belong to one head, by its position."""
        return [column for span in self.spans[index] for column in range(span.start, span.stop)]

    @cached_property
    def held_columns(self) -> dict[int, Transform]:
        """The columns of this head's complete eta whose inverse link is not defined, or overflows, somewhere."""
        parts = enumerate(self.parts)
        return {self.columns(index)[k]: link for index, part in parts for k, link in part.held_columns.items()}

    def distribution(self, eta: Tensor) -> Joint:
        """The distribution of all targets for a complete eta."""
        parts = [self._part(i).distribution(self._eta(eta, i)) for i in range(len(self.parts))]
        return Joint(parts, self.stand_ins, eta.shape[:-1])

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL for a complete eta with its kinks smoothed, summed over the observed targets, (*batch,)."""
        total = torch.zeros_like(eta[..., 0])
        for index in range(len(self.parts)):
            column, observed = self.of_target(y, index)
            part = self._part(index)
            total = total + torch.where(observed, part.rounded_nll(self._eta(eta, index), column), 0.0)
        return total

    def of_target(self, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The values of one target for its head, a value of the support where missing; and whether each is observed."""
        return one_target(y, index, self.stand_ins[index], self.parts[index].target in ("labels", "ordered"))

    def information(self, eta: Tensor) -> Tensor | None:
        """Block-diagonal expected information, a block for each head; None where any head states none."""
        whole = eta.new_zeros(*eta.shape, eta.shape[-1])
        for index in range(len(self.parts)):
            block = self._part(index).information(self._eta(eta, index))
            if block is None:
                return None
            at = torch.tensor(self.columns(index), device=eta.device)
            whole[..., at.unsqueeze(1), at] = block
        return whole

    def _spans(self) -> tuple[tuple[range, range], ...]:
        """The columns of the predicted and of the shared parameters of each head."""
        spans, eta, shared = [], 0, self.eta_dim
        for part in self.parts:
            spans.append((range(eta, eta + part.eta_dim), range(shared, shared + part.shared_dim)))
            eta, shared = eta + part.eta_dim, shared + part.shared_dim
        return tuple(spans)

    def _eta(self, eta: Tensor, index: int) -> Tensor:
        predicted, shared = (eta[..., span.start : span.stop] for span in self.spans[index])
        return torch.cat([predicted, shared], -1) if shared.shape[-1] else predicted

    def _part(self, index: int) -> Head:
        """One of the heads, with its floor and the kink of this head."""
        part = self.parts[index]
        part.floor, part.kink = self.floor[index], self.kink
        return part

    def _copy_units(self) -> None:
        for index, part in enumerate(self.parts):
            at = self.columns(index)
            self.center[at], self.gain[at] = part.center, part.gain
            self.floor[index] = part.floor


def _inside(support: constraints.Constraint) -> float:
    """A value inside the support."""
    return next((value for value in _CANDIDATES if bool(support.check(torch.tensor(value)))), 0.0)
