"""The multitask head: a head of its own for each of several targets."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from mlefw.distribution.joint import Joint, one_target
from mlefw.distribution.parameter import Limit
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start

_CANDIDATES = (0.0, 1.0, 0.5)


class _Support(constraints.Constraint):
    """Every target that is there lies in the support of its head."""

    event_dim = 1

    def __init__(self, parts: Sequence[Head]) -> None:
        self.supports = tuple(part.support for part in parts)
        self.is_discrete = all(support.is_discrete for support in self.supports)

    def check(self, value: Tensor) -> Tensor:
        columns = zip(self.supports, value.unbind(-1), strict=True)
        return torch.stack([support.check(y) | y.isnan() for support, y in columns], -1).all(-1)


class JointHead(Head):
    """Several targets: y (*batch, num_targets), of a distribution that has `marginals` (see `Joint`)."""

    targets: tuple[str, ...]
    """Their names, in the order of the columns of y."""

    @abstractmethod
    def set_column_units(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        """`set_units` with the mean and standard deviation of each target."""


class MultitaskHead(JointHead):
    """Several targets, independent given x, each with its own head and its own dispersion.

    Choose it for several targets that share the layers of a network, of one kind or of several: prices and classes,
    counts and yes or no. The NLL is the plain sum over the targets: no weights, which would not be a likelihood. For
    numbers whose noise is correlated choose `multivariate_gaussian`. A target that is missing in a row (NaN) adds
    nothing there; the mean is over all rows.

    Domain: that of each head.
    Link: eta is that of the heads one after the other, their shared parameters after all that is predicted.
    NLL: Σ over the targets that are there of the NLL of their heads.

    Args:
        tasks: the head of each target by the name of its column, in the order of the columns of y.
        start: as for any head.
    """

    also_known_as: ClassVar = "multitask learning, without weights of the tasks"
    partial: ClassVar = True

    def __init__(self, tasks: Mapping[str, Head], start: Start = "null") -> None:
        if len(tasks) < 2:
            raise UsageError(f"several targets have a head each, and there are {len(tasks)}: expected at least two")
        named = [(name, head) for name, head in tasks.items()]
        super().__init__(
            tuple(f"{name}.{eta}" for name, head in named for eta in head.eta_names),
            tuple(f"{name}.{shared}" for name, head in named for shared in head.shared_names),
            start,
        )
        self.targets = tuple(tasks)
        # A plain tuple: what is trained, moved and stored are the buffers and parameters of the whole.
        self.parts = tuple(tasks.values())
        self.event_shape = torch.Size([len(self.parts)])
        self.register_buffer("floor", torch.zeros(len(self.parts), dtype=torch.float64))
        self.support = _Support(self.parts)
        self.convex = all(part.convex for part in self.parts)
        self.unimodal = all(part.convex or part.unimodal for part in self.parts)
        self.stand_ins = tuple(_inside(part.support) for part in self.parts)
        self.spans = self._spans()
        self._gather()

    def set_column_units(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        """Those of each head whose target is a number."""
        for part, one, other in zip(self.parts, mean, spread, strict=True):
            if part.target == "numeric":
                part.set_units(one, other)
        self._gather()

    def column_limits(self) -> list[tuple[int, Limit]]:
        """Those of the heads."""
        return [
            (self.columns(index)[column], limit)
            for index, part in enumerate(self.parts)
            for column, limit in part.column_limits()
        ]

    def lowest(self) -> Tensor:
        """Those of the heads."""
        values = super().lowest()
        for index, part in enumerate(self.parts):
            part.floor = self.floor[index]
            values[self.columns(index)] = part.lowest().to(values.device)
        return values

    @property
    def shifts(self) -> tuple[tuple[int, list[int]], ...]:
        """Those of the heads."""
        return tuple(
            (predicted[reference], [predicted[column] for column in columns])
            for part, (predicted, _) in zip(self.parts, self.spans, strict=True)
            for reference, columns in part.shifts
        )

    def columns(self, index: int) -> list[int]:
        """The columns of a complete eta that are those of one head."""
        return [column for span in self.spans[index] for column in range(span.start, span.stop)]

    def distribution(self, eta: Tensor) -> Joint:
        """The distribution of all targets for a complete eta."""
        parts = [self._part(i).distribution(self._eta(eta, i)) for i in range(len(self.parts))]
        return Joint(parts, self.stand_ins, eta.shape[:-1])

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The sum of those of the heads."""
        total = torch.zeros_like(eta[..., 0])
        for index in range(len(self.parts)):
            column, observed = self.of_target(y, index)
            part = self._part(index)
            total = total + torch.where(observed, part.rounded_nll(self._eta(eta, index), column), 0.0)
        return total

    def of_target(self, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """One target as its head takes it, a value of its support where it is missing, and where it is there."""
        return one_target(y, index, self.stand_ins[index], self.parts[index].target in ("labels", "ordered"))

    def information(self, eta: Tensor) -> Tensor | None:
        """A block for each head; None where one of them states none."""
        whole = eta.new_zeros(*eta.shape, eta.shape[-1])
        for index in range(len(self.parts)):
            block = self._part(index).information(self._eta(eta, index))
            if block is None:
                return None
            at = torch.tensor(self.columns(index), device=eta.device)
            whole[..., at.unsqueeze(1), at] = block
        return whole

    def _spans(self) -> tuple[tuple[range, range], ...]:
        """The predicted and the shared columns of each head."""
        spans, eta, shared = [], 0, self.eta_dim
        for part in self.parts:
            spans.append((range(eta, eta + part.eta_dim), range(shared, shared + part.shared_dim)))
            eta, shared = eta + part.eta_dim, shared + part.shared_dim
        return tuple(spans)

    def _eta(self, eta: Tensor, index: int) -> Tensor:
        predicted, shared = (eta[..., span.start : span.stop] for span in self.spans[index])
        return torch.cat([predicted, shared], -1) if shared.shape[-1] else predicted

    def _part(self, index: int) -> Head:
        """A head with the floor and the kink of the whole."""
        part = self.parts[index]
        part.floor, part.kink = self.floor[index], self.kink
        return part

    def _gather(self) -> None:
        for index, part in enumerate(self.parts):
            at = self.columns(index)
            self.center[at], self.gain[at] = part.center, part.gain
            self.floor[index] = part.floor


def _inside(support: constraints.Constraint) -> float:
    """Some value of the support."""
    return next((value for value in _CANDIDATES if bool(support.check(torch.tensor(value)))), 0.0)
