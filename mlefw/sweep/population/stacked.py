"""Networks of one architecture as one: their parameters in a matrix, a row each, their steps in batched products."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.objective.objective import Evaluation, Objective
from mlefw.objective.replay import Replay
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.sweep.population.table import Table

_BLOCK = 2**18
"""Rows of all members together that are evaluated at once."""
_FEW = 16
_WORTH = 8
"""Evaluations of one shape after which the next one is recorded."""

_STANDARDIZE = ("model.mean", "model.scale", "model.inputs.")
"""Buffers of an objective that a row has met by the time it is here."""


class _Call(nn.Module):
    """Lets a function of an objective be called with other parameters than its own."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, function: Callable[[Objective], Any]) -> Any:
        """What the function says."""
        return function(self.objective)


class Stack:
    """The parameters of M objectives, which from then on are views of the rows of `flat`, (M, num_parameters).

    The objectives are alike but for parameters, the scale of the prior, and what they have learnt from training rows:
    the values of buffers, the population, and the number of inputs. Of a parameter that is smaller in some of them, as
    the first weights are for fewer inputs, the rest of the room in their rows is zero and stays so, since the inputs
    there are zero.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = list(objectives)
        first = self.objectives[0]
        self.names = [name for name, _ in first.named_parameters()]
        alike = list(zip(*(o.parameters() for o in self.objectives), strict=True))
        self.shapes = [torch.Size(map(max, zip(*(p.shape for p in ps), strict=True))) for ps in alike]
        self.sizes = [shape.numel() for shape in self.shapes]
        under = {id(w) for w in first.weights()}
        held = [torch.full((n,), id(p) in under) for p, n in zip(first.parameters(), self.sizes, strict=True)]
        is_weight = torch.cat(held)
        self.flat = torch.stack([self._flattened(o) for o in self.objectives])
        self.learnt = self._learnt()
        self.curvature = self._column([_curvature(o) for o in self.objectives]) * is_weight
        self.rate = self._column([o.prior.rate / o.population for o in self.objectives]) * is_weight
        self.constant = self._column([_constant(o) for o in self.objectives])
        self.together: list[bool] | None = None
        self.steps, self.evaluations = Replay(1), Replay(_WORTH)
        self._adopt()

    def keep(self, index: Tensor) -> None:
        """Go on with some of the members."""
        self.objectives = [self.objectives[i] for i in index.tolist()]
        self.flat, self.curvature, self.rate = self.flat[index], self.curvature[index], self.rate[index]
        self.constant = self.constant[index]
        self.learnt = {name: value[index] for name, value in self.learnt.items()}
        self._adopt()

    @property
    def shares(self) -> Tensor | None:
        """By which each member's scale of a batch is to be multiplied, (M,); None where their populations are equal."""
        populations = [o.population for o in self.objectives]
        if len({*populations}) == 1:
            return None
        return populations[0] / torch.tensor(populations, dtype=torch.float64)

    def gradient(self, rows: Rows, scale: float | Tensor, is_shared: bool) -> tuple[Tensor, Tensor]:
        """The objective on a batch for each member, (M,), and its gradient, (M, num_parameters).

        Shapes: columns of rows (M, batch, …), or (batch, …) where all members see the same; x is standardised. The
        scale is one number, or one for each member (M,), with which the population of the first one is right.
        """
        lay, own = None if is_shared else 0, isinstance(scale, Tensor)

        def fit(named: dict[str, Tensor], scale: Any, *columns: Tensor) -> Tensor:
            batch = Batch(Rows(*columns), scale, standardized=True)
            return self._call(named, lambda objective: objective.descent_fit(batch))

        def descend(flat: Tensor, curvature: Tensor, constant: Tensor, *columns: Tensor) -> list[Tensor]:
            scales, columns = (columns[0], columns[1:]) if own else (scale, columns)
            with torch.enable_grad():
                leaf = flat.detach().requires_grad_()
                lays = (0, 0 if own else None, lay, lay, lay, lay)
                value = vmap(fit, in_dims=lays)(self._named(leaf), scales, *columns)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            pull = curvature * flat
            return [value.detach() + 0.5 * (pull * flat).sum(1) + constant[:, 0], gradient + pull]

        key = (self.flat.shape, rows.x.shape, None if own else scale, is_shared)
        inputs = [self.flat, self.curvature, self.constant, *([scale] if isinstance(scale, Tensor) else []), *rows]
        value, gradient = self.steps(key, descend, inputs)
        return value, gradient

    @torch.no_grad()
    def evaluate(self, table: Table) -> list[Evaluation]:
        """Eta and NLL of every row, of each member."""
        size = self._block

        def values(named: dict[str, Tensor], *columns: Tensor) -> list[tuple[Tensor, Tensor]]:
            parts = Rows(*columns).blocks(size)
            return self._call(named, lambda objective: [_seen(objective, part) for part in parts])

        etas, nlls = zip(*self._each(values, table), strict=True)
        pairs = zip(torch.cat(etas, 1), torch.cat(nlls, 1), table.sizes, strict=True)
        return [Evaluation(eta[:num_rows], nll[:num_rows]) for eta, nll, (num_rows, _) in pairs]

    @torch.no_grad()
    def figures(self, table: Table, metrics: Sequence[Metric]) -> list[dict[str, float]]:
        """The figures of each member on its rows, as its module has them."""
        if self.together is None:
            self.together = [self._is_batchable(metric, table) for metric in metrics]
        batched = [metric for metric, together in zip(metrics, self.together, strict=True) if together]
        alone = [metric for metric, together in zip(metrics, self.together, strict=True) if not together]
        found: list[dict[str, float]] = [{} for _ in self.objectives]
        if batched:
            key, inputs = (id(table), self.flat.shape), [self.flat, *table.rows]
            sums = self.evaluations(key, lambda *_: self._sums(batched, table), inputs)
            accumulator = Accumulator(batched)
            for i, figures in enumerate(found):
                accumulator.sums = [total[i] for total in sums]
                figures |= _numbers(accumulator)
        for i, objective in enumerate(self.objectives) if alone else ():
            accumulator = Accumulator(alone)
            _add_up(accumulator, objective, table.of(i).blocks(_BLOCK))
            found[i] |= _numbers(accumulator)
        return found

    def _sums(self, metrics: Sequence[Metric], table: Table, most: int | None = None) -> list[Tensor]:
        """The sums of metrics over the first rows of each member, (M, …) each."""

        def values(named: dict[str, Tensor], *columns: Tensor) -> list[Tensor]:
            accumulator, rows = Accumulator(metrics), Rows(*(column[:most] for column in columns))
            self._call(named, lambda objective: _add_up(accumulator, objective, rows.blocks(self._block)))
            return accumulator.sums or []

        found: list[Tensor] = self._each(values, table)
        return found

    def _each(self, function: Callable[..., Any], table: Table) -> Any:
        """What a function of parameters and buffers by name, and of columns of rows, says of each member."""
        lay = None if table.is_shared else 0
        return vmap(function, in_dims=(0, lay, lay, lay, lay))(self._named(self.flat), *table.rows)

    def _is_batchable(self, metric: Metric, table: Table) -> bool:
        """Whether a metric is made of operations that exist for many members at once."""
        try:
            self._sums([metric], table, _FEW)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            return False
        return True

    @property
    def _block(self) -> int:
        return max(1, _BLOCK // len(self.objectives))

    def _call(self, named: dict[str, Tensor], function: Callable[[Objective], Any]) -> Any:
        found = {f"objective.{name}": value for name, value in named.items()}
        return functional_call(_Call(self.objectives[0]), found, (function,))

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Parameters of all members by name, and what they have learnt differently."""
        parts = zip(self.names, flat.split(self.sizes, dim=1), self.shapes, strict=True)
        return {name: part.view(len(flat), *shape) for name, part, shape in parts} | self.learnt

    def parts(self, row: Tensor, objective: Objective) -> list[Tensor]:
        """Views of a row of `flat`, or of one that is laid out like it, in the shapes of an objective's parameters."""
        views = zip(row.split(self.sizes), self.shapes, objective.parameters(), strict=True)
        return [part.view(shape)[tuple(map(slice, p.shape))] for part, shape, p in views]

    def _flattened(self, objective: Objective) -> Tensor:
        row = torch.zeros(sum(self.sizes), dtype=next(objective.parameters()).dtype)
        for part, p in zip(self.parts(row, objective), objective.parameters(), strict=True):
            part.copy_(p.detach())
        return row

    def _learnt(self) -> dict[str, Tensor]:
        """Buffers that differ, (M, …) each, but for those that standardise features, which the rows are already."""
        alike = list(zip(*(o.named_buffers() for o in self.objectives), strict=True))
        known = {buffers[0][0]: [value for _, value in buffers] for buffers in alike}
        own = {name: values for name, values in known.items() if not name.startswith(_STANDARDIZE)}
        differ = {name: values for name, values in own.items() if any(not torch.equal(values[0], v) for v in values)}
        return {name: torch.stack(values) for name, values in differ.items()}

    def _adopt(self) -> None:
        for row, objective in zip(self.flat, self.objectives, strict=True):
            for p, part in zip(objective.parameters(), self.parts(row, objective), strict=True):
                p.data = part

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype).unsqueeze(1)


def _add_up(accumulator: Accumulator, objective: Objective, blocks: Iterable[Rows]) -> None:
    for part in blocks:
        distribution = objective.head(objective.eta(part.x, part.offset, True))
        accumulator.add(accumulator.of_block(distribution, part.y, part.weight))


def _numbers(accumulator: Accumulator) -> dict[str, float]:
    values = accumulator.figures()
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def _seen(objective: Objective, rows: Rows) -> tuple[Tensor, Tensor]:
    eta = objective.eta(rows.x, rows.offset, True)
    return eta, objective.head.nll(eta, rows.y)


def _constant(objective: Objective) -> float:
    """Of the smooth part of the penalty per observation, what it is where all weights are zero."""
    parts = (objective.prior.smooth_part(torch.zeros_like(w)).detach() for w in objective.weights())
    return float(sum(parts, start=torch.zeros(()))) / objective.population


def _curvature(objective: Objective) -> float:
    """Of the smooth part of the penalty per observation, a parabola in each weight."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    part = objective.prior.smooth_part(w)
    if not part.requires_grad:
        return 0.0
    return float(torch.autograd.grad(part, w)[0]) / objective.population
