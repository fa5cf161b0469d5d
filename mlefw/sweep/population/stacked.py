"""Networks of one architecture with their parameters in one matrix, so that a step of all is one batched product."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.objective.objective import Evaluation, Objective, rows_at_once
from mlefw.objective.replay import Replay
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.sweep.population import loss_numbers, parabola
from mlefw.sweep.population.dropout import Masks
from mlefw.sweep.population.stacked_rows import StackedRows
from mlefw.system.random_state import RandomStream

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

    The objectives may differ in the values of parameters, in the scale of the prior, in numbers of the loss, in the
    share that dropout drops, and in what follows from the training rows: the values of buffers, the population, and the
    number of inputs. With fewer inputs than others an objective has fewer first weights: the elements of its row that
    it has no use for are zero, and stay zero, since the inputs there are zero.

    Args:
        objectives: on one device.
        streams: the random stream of the steps of each; none where no step is taken.
    """

    def __init__(self, objectives: Sequence[Objective], streams: Sequence[RandomStream] = ()) -> None:
        self.objectives = list(objectives)
        # Its code computes all of them: the one with the most layers, since without dropout there may be fewer.
        self.template = deepcopy(max(self.objectives, key=lambda one: len(list(one.modules()))))
        self.masks = Masks(self.template, self.objectives, streams) if streams else None
        self.names = [name for name, _ in self.template.named_parameters()]
        alike = list(zip(*(o.parameters() for o in self.objectives), strict=True))
        self.shapes = [torch.Size(map(max, zip(*(p.shape for p in ps), strict=True))) for ps in alike]
        self.sizes = [shape.numel() for shape in self.shapes]
        first = self.objectives[0]
        under = {id(w) for w in first.weights()}
        held = [torch.full((n,), id(p) in under) for p, n in zip(first.parameters(), self.sizes, strict=True)]
        self.flat = torch.stack([self._flattened(o) for o in self.objectives])
        is_weight = torch.cat(held).to(self.flat.device)
        self.learnt = self._learnt()
        self.numbers = loss_numbers.differing([o.loss for o in self.objectives], self.flat.device)
        self.curvature = self._column([parabola.curvature(o) for o in self.objectives]) * is_weight
        self.rate = self._column([o.prior.rate / o.population for o in self.objectives]) * is_weight
        self.constant = self._column([parabola.constant(o) for o in self.objectives])
        self.together: list[bool] | None = None
        self.steps, self.evaluations = Replay(1), Replay(_CALLS_BEFORE_RECORDING)
        self._link()

    def keep(self, index: Tensor) -> None:
        """Keep the members at these positions, and drop the others."""
        self.objectives = [self.objectives[i] for i in index.tolist()]
        self.flat, self.curvature, self.rate = self.flat[index], self.curvature[index], self.rate[index]
        self.constant = self.constant[index]
        self.learnt, self.numbers = (
            {name: value[index] for name, value in own.items()} for own in (self.learnt, self.numbers)
        )
        if self.masks is not None:
            self.masks.keep(index.tolist())
        self._link()

    @property
    def shares(self) -> Tensor | None:
        """Factors on scales of batches, (M,): population of the template over that of each; None if all agree."""
        populations = [o.population for o in self.objectives]
        if {*populations} == {self.template.population}:
            return None
        factors = self.template.population / torch.tensor(populations, dtype=torch.float64)
        return factors.to(self.flat.device)

    def gradient(
        self, rows: Rows, scale: float | Tensor, is_shared: bool, sizes: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """The objective on a batch for each member, (M,), and its gradient, (M, num_parameters).

        Args:
            rows: columns (M, batch, …), or (batch, …) where the batch is shared; x is standardised.
            scale: of the sum over the batch; one number, or one of each member, (M,). It counts on the population of
                the template (see `shares`).
            is_shared: whether all members have the same batch.
            sizes: number of rows in the batch of each member; by default all rows.
        """
        lay, own = None if is_shared else 0, isinstance(scale, Tensor)
        x = rows.x if is_shared else rows.x[0]
        sizes = sizes or [len(x)] * len(self.objectives)
        masks = self.masks.draw(x, sizes) if self.masks is not None else []
        self.template.train()

        def fit(named: dict[str, Tensor], numbers: dict[str, Tensor], masks: list[Tensor], *rest: Any) -> Tensor:
            batch = Batch(Rows(*rest[1:]), rest[0], standardized=True)
            return self._fit(named, numbers, masks, batch)

        def descend(flat: Tensor, curvature: Tensor, constant: Tensor, *given: Tensor) -> list[Tensor]:
            masks, columns = list(given[: len(given) - 4 - own]), given[len(given) - 4 :]
            scales = given[len(given) - 5] if own else scale
            with torch.enable_grad():
                leaf = flat.detach().requires_grad_()
                lays = (0, 0, 0, 0 if own else None, lay, lay, lay, lay)
                value = vmap(fit, in_dims=lays)(self._named(leaf), self.numbers, masks, scales, *columns)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            pull = curvature * flat
            return [value.detach() + 0.5 * (pull * flat).sum(1) + constant[:, 0], gradient + pull]

        key = (self.flat.shape, rows.x.shape, None if own else scale, is_shared)
        inputs = [self.flat, self.curvature, self.constant, *masks, *([scale] if isinstance(scale, Tensor) else [])]
        value, gradient = self.steps(key, descend, [*inputs, *rows])
        return value, gradient

    def _fit(
        self, named: dict[str, Tensor], numbers: dict[str, Tensor], masks: Sequence[Tensor], batch: Batch
    ) -> Tensor:
        """The objective on a batch without its prior, with the numbers and masks of one member."""
        with loss_numbers.set_to(self.template.loss, numbers), self._masked(masks):
            found: Tensor = self._call(named, lambda objective: objective.descent_fit(batch))
        return found

    def _masked(self, masks: Sequence[Tensor]) -> AbstractContextManager[None]:
        return nullcontext() if self.masks is None else self.masks.used(masks)

    @torch.no_grad()
    def evaluate(self, stacked: StackedRows) -> list[Evaluation]:
        """Eta and NLL of every row under each member."""
        size = self._block(stacked)

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
            accumulator.has_positions = stacked.has_positions
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
            self._call(named, lambda objective: _add_up(accumulator, objective, rows.blocks(self._block(stacked))))
            return accumulator.sums or []

        found: list[Tensor] = self._over_members(values, stacked)
        return found

    def _over_members(self, function: Callable[..., Any], stacked: StackedRows) -> Any:
        """The values, for each member, of a function of parameters and buffers by name and of the columns of rows."""
        lay = None if stacked.is_shared else 0
        self.template.eval()
        return vmap(function, in_dims=(0, lay, lay, lay, lay))(self._named(self.flat), *stacked.rows)

    def _is_batchable(self, metric: Metric, stacked: StackedRows) -> bool:
        """Whether a metric consists of operations that `vmap` has a rule for."""
        try:
            self._sums([metric], stacked, _NUM_PROBED)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            return False
        return True

    def _block(self, stacked: StackedRows) -> int:
        """Rows of each member that are evaluated at once."""
        most = _BLOCK if stacked.is_table else rows_at_once(self.template.head, stacked.rows)
        return max(1, most // len(self.objectives))

    def _call(self, named: dict[str, Tensor], function: Callable[[Objective], Any]) -> Any:
        found = {f"objective.{name}": value for name, value in named.items()}
        return functional_call(_Call(self.template), found, (function,))

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Parameters by name, (M, …) each, and the buffers in which members differ."""
        parts = zip(self.names, flat.split(self.sizes, dim=1), self.shapes, strict=True)
        return {name: part.view(len(flat), *shape) for name, part, shape in parts} | self.learnt

    def parts(self, row: Tensor, objective: Objective) -> list[Tensor]:
        """Views of a row of `flat`, or of a vector laid out like one, in the shapes of an objective's parameters."""
        views = zip(row.split(self.sizes), self.shapes, objective.parameters(), strict=True)
        return [part.view(shape)[tuple(map(slice, p.shape))] for part, shape, p in views]

    def _flattened(self, objective: Objective) -> Tensor:
        row = next(objective.parameters()).new_zeros(sum(self.sizes))
        for part, p in zip(self.parts(row, objective), objective.parameters(), strict=True):
            part.copy_(p.detach())
        return row

    def _learnt(self) -> dict[str, Tensor]:
        """Buffers in which members differ, (M, …) each, without those that standardise features."""
        alike = list(zip(*(o.named_buffers() for o in self.objectives), strict=True))
        names = [name for name, _ in self.template.named_buffers()]
        known = {name: [value for _, value in buffers] for name, buffers in zip(names, alike, strict=True)}
        own = {name: values for name, values in known.items() if not name.startswith(_STANDARDIZE)}
        differ = {name: values for name, values in own.items() if any(not torch.equal(values[0], v) for v in values)}
        return {name: torch.stack(values) for name, values in differ.items()}

    def _link(self) -> None:
        """Let the parameters of each objective be views of its row."""
        for row, objective in zip(self.flat, self.objectives, strict=True):
            for p, part in zip(objective.parameters(), self.parts(row, objective), strict=True):
                p.data = part

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype, device=self.flat.device).unsqueeze(1)


def _add_up(accumulator: Accumulator, objective: Objective, blocks: Iterable[Rows]) -> None:
    for part in blocks:
        eta, y, weight = objective.observations(part, objective.eta(part.x, part.offset, True))
        num_rows = part.num_rows if part.positions else None
        accumulator.add(accumulator.of_block(objective.head(eta), y, weight, num_rows))


def _as_floats(accumulator: Accumulator) -> dict[str, float]:
    # Figures are computed on the host, as in `Evaluator`.
    accumulator.sums = [total.cpu() for total in accumulator.sums or []]
    values = accumulator.figures()
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def _eta_and_nll(objective: Objective, rows: Rows) -> tuple[Tensor, Tensor]:
    eta = objective.eta(rows.x, rows.offset, True)
    return eta, rows.row_means(objective.head.nll(eta, rows.y))
