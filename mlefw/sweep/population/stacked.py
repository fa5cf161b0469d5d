"""Networks of one architecture with their parameters in one matrix, so that a step of all is one batched product."""

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
from mlefw.sweep.population.stacked_rows import StackedRows

_BLOCK = 2**18
"""Rows of all members together that are evaluated at once."""
_NUM_PROBED = 16
"""Rows on which it is tried whether a metric can be computed for all members at once."""

_CALLS_BEFORE_RECORDING = 8
"""Evaluations of one shape after which the next one is recorded."""

_STANDARDIZE = ("model.mean", "model.scale", "model.inputs.")
"""Buffers of an objective that are applied to rows once, before training: here rows are standardised already."""


class _Call(nn.Module):
    """Lets a function of an objective be called with other parameters than its own."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, function: Callable[[Objective], Any]) -> Any:
        """The value of the function at the objective."""
        return function(self.objective)


class Stack:
    """The parameters of M objectives, which become views of the rows of the matrix `flat`, (M, num_parameters).

    The objectives may differ in the values of parameters, in the scale of the prior, and in what follows from the
    training rows: the values of buffers, the population, and the number of inputs. With fewer inputs than others an
    objective has fewer first weights: the elements of its row that it has no use for are zero, and stay zero, since
    the inputs there are zero.
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
        self.steps, self.evaluations = Replay(1), Replay(_CALLS_BEFORE_RECORDING)
        self._link()

    def keep(self, index: Tensor) -> None:
        """Keep the members at these positions, and drop the others."""
        self.objectives = [self.objectives[i] for i in index.tolist()]
        self.flat, self.curvature, self.rate = self.flat[index], self.curvature[index], self.rate[index]
        self.constant = self.constant[index]
        self.learnt = {name: value[index] for name, value in self.learnt.items()}
        self._link()

    @property
    def shares(self) -> Tensor | None:
        """Factors on scales of batches, (M,): population of the first member over that of each; None if they agree."""
        populations = [o.population for o in self.objectives]
        if len({*populations}) == 1:
            return None
        return populations[0] / torch.tensor(populations, dtype=torch.float64)

    def gradient(self, rows: Rows, scale: float | Tensor, is_shared: bool) -> tuple[Tensor, Tensor]:
        """The objective on a batch for each member, (M,), and its gradient, (M, num_parameters).

        Args:
            rows: columns (M, batch, …), or (batch, …) where the batch is shared; x is standardised.
            scale: of the sum over the batch; one number, or one of each member, (M,). It counts on the population of
                the first member (see `shares`).
            is_shared: whether all members have the same batch.
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
    def evaluate(self, stacked: StackedRows) -> list[Evaluation]:
        """Eta and NLL of every row under each member."""
        size = self._block

        def values(named: dict[str, Tensor], *columns: Tensor) -> list[tuple[Tensor, Tensor]]:
            parts = Rows(*columns).blocks(size)
            return self._call(named, lambda objective: [_eta_and_nll(objective, part) for part in parts])

        etas, nlls = zip(*self._over_members(values, stacked), strict=True)
        pairs = zip(torch.cat(etas, 1), torch.cat(nlls, 1), stacked.sizes, strict=True)
        return [Evaluation(eta[:num_rows], nll[:num_rows]) for eta, nll, (num_rows, _) in pairs]

    @torch.no_grad()
    def figures(self, stacked: StackedRows, metrics: Sequence[Metric]) -> list[dict[str, float]]:
        """The value of every metric by its name, for each member on its rows."""
        if self.together is None:
            self.together = [self._is_batchable(metric, stacked) for metric in metrics]
        batched = [metric for metric, together in zip(metrics, self.together, strict=True) if together]
        alone = [metric for metric, together in zip(metrics, self.together, strict=True) if not together]
        found: list[dict[str, float]] = [{} for _ in self.objectives]
        if batched:
            key, inputs = (id(stacked), self.flat.shape), [self.flat, *stacked.rows]
            sums = self.evaluations(key, lambda *_: self._sums(batched, stacked), inputs)
            accumulator = Accumulator(batched)
            for i, figures in enumerate(found):
                accumulator.sums = [total[i] for total in sums]
                figures |= _as_floats(accumulator)
        for i, objective in enumerate(self.objectives) if alone else ():
            accumulator = Accumulator(alone)
            _add_up(accumulator, objective, stacked.of(i).blocks(_BLOCK))
            found[i] |= _as_floats(accumulator)
        return found

    def _sums(self, metrics: Sequence[Metric], stacked: StackedRows, most: int | None = None) -> list[Tensor]:
        """The sums of metrics over the first `most` rows of each member, by default over all, (M, …) each."""

        def values(named: dict[str, Tensor], *columns: Tensor) -> list[Tensor]:
            accumulator, rows = Accumulator(metrics), Rows(*(column[:most] for column in columns))
            self._call(named, lambda objective: _add_up(accumulator, objective, rows.blocks(self._block)))
            return accumulator.sums or []

        found: list[Tensor] = self._over_members(values, stacked)
        return found

    def _over_members(self, function: Callable[..., Any], stacked: StackedRows) -> Any:
        """The values, for each member, of a function of parameters and buffers by name and of the columns of rows."""
        lay = None if stacked.is_shared else 0
        return vmap(function, in_dims=(0, lay, lay, lay, lay))(self._named(self.flat), *stacked.rows)

    def _is_batchable(self, metric: Metric, stacked: StackedRows) -> bool:
        """Whether a metric consists of operations that `vmap` has a rule for."""
        try:
            self._sums([metric], stacked, _NUM_PROBED)
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
        """Parameters by name, (M, …) each, and the buffers in which members differ."""
        parts = zip(self.names, flat.split(self.sizes, dim=1), self.shapes, strict=True)
        return {name: part.view(len(flat), *shape) for name, part, shape in parts} | self.learnt

    def parts(self, row: Tensor, objective: Objective) -> list[Tensor]:
        """Views of a row of `flat`, or of a vector laid out like one, in the shapes of an objective's parameters."""
        views = zip(row.split(self.sizes), self.shapes, objective.parameters(), strict=True)
        return [part.view(shape)[tuple(map(slice, p.shape))] for part, shape, p in views]

    def _flattened(self, objective: Objective) -> Tensor:
        row = torch.zeros(sum(self.sizes), dtype=next(objective.parameters()).dtype)
        for part, p in zip(self.parts(row, objective), objective.parameters(), strict=True):
            part.copy_(p.detach())
        return row

    def _learnt(self) -> dict[str, Tensor]:
        """Buffers in which members differ, (M, …) each, without those that standardise features."""
        alike = list(zip(*(o.named_buffers() for o in self.objectives), strict=True))
        known = {buffers[0][0]: [value for _, value in buffers] for buffers in alike}
        own = {name: values for name, values in known.items() if not name.startswith(_STANDARDIZE)}
        differ = {name: values for name, values in own.items() if any(not torch.equal(values[0], v) for v in values)}
        return {name: torch.stack(values) for name, values in differ.items()}

    def _link(self) -> None:
        """Let the parameters of each objective be views of its row."""
        for row, objective in zip(self.flat, self.objectives, strict=True):
            for p, part in zip(objective.parameters(), self.parts(row, objective), strict=True):
                p.data = part

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype).unsqueeze(1)


def _add_up(accumulator: Accumulator, objective: Objective, blocks: Iterable[Rows]) -> None:
    for part in blocks:
        distribution = objective.head(objective.eta(part.x, part.offset, True))
        accumulator.add(accumulator.of_block(distribution, part.y, part.weight))


def _as_floats(accumulator: Accumulator) -> dict[str, float]:
    values = accumulator.figures()
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def _eta_and_nll(objective: Objective, rows: Rows) -> tuple[Tensor, Tensor]:
    eta = objective.eta(rows.x, rows.offset, True)
    return eta, objective.head.nll(eta, rows.y)


def _constant(objective: Objective) -> float:
    """The smooth part of the penalty per observation where all weights are zero."""
    parts = (objective.prior.smooth_part(torch.zeros_like(w)).detach() for w in objective.weights())
    return float(sum(parts, start=torch.zeros(()))) / objective.population


def _curvature(objective: Objective) -> float:
    """The second derivative of the smooth part of the penalty per observation, which is a parabola in each weight."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    part = objective.prior.smooth_part(w)
    if not part.requires_grad:
        return 0.0
    return float(torch.autograd.grad(part, w)[0]) / objective.population
