"""Networks of one architecture as one: their parameters in a matrix, a row each, their steps in batched products."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.objective.objective import Evaluation, Objective
from mlefw.objective.tape import NotReplayableError, Tape
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows

_BLOCK = 2**18
"""Rows of all members together that are evaluated at once."""
_FEW = 16


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

    The objectives differ in parameters and in the scale of the prior alone.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = list(objectives)
        first = self.objectives[0]
        self.names = [name for name, _ in first.named_parameters()]
        self.shapes = [p.shape for p in first.parameters()]
        self.sizes = [p.numel() for p in first.parameters()]
        under = {id(w) for w in first.weights()}
        held = [torch.full((p.numel(),), id(p) in under) for p in first.parameters()]
        is_weight = torch.cat(held)
        self.flat = torch.stack([torch.cat([p.detach().flatten() for p in o.parameters()]) for o in self.objectives])
        self.curvature = self._column([_curvature(o) for o in self.objectives]) * is_weight
        self.rate = self._column([o.prior.rate / o.population for o in self.objectives]) * is_weight
        self.constant = self._column([_constant(o) for o in self.objectives])
        self.together: list[bool] | None = None
        self.tapes: dict[object, Tape | None] = {}
        self.seen: set[object] = set()
        self._adopt()

    def keep(self, index: Tensor) -> None:
        """Go on with some of the members."""
        self.objectives = [self.objectives[i] for i in index.tolist()]
        self.flat, self.curvature, self.rate = self.flat[index], self.curvature[index], self.rate[index]
        self.constant = self.constant[index]
        self._adopt()

    def gradient(self, rows: Rows, scale: float, is_shared: bool) -> tuple[Tensor, Tensor]:
        """The objective on a batch for each member, (M,), and its gradient, (M, num_parameters).

        Shapes: columns of rows (M, batch, …), or (batch, …) where all members see the same; x is standardised.
        """
        lay = None if is_shared else 0

        def fit(parameters: dict[str, Tensor], *columns: Tensor) -> Tensor:
            batch = Batch(Rows(*columns), scale, standardized=True)
            return self._call(parameters, lambda objective: objective.descent_fit(batch))

        def descend(flat: Tensor, curvature: Tensor, constant: Tensor, *columns: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                leaf = flat.detach().requires_grad_()
                value = vmap(fit, in_dims=(0, lay, lay, lay, lay))(self._named(leaf), *columns)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            pull = curvature * flat
            return [value.detach() + 0.5 * (pull * flat).sum(1) + constant[:, 0], gradient + pull]

        key = ("gradient", self.flat.shape, rows.x.shape, scale, is_shared)
        value, gradient = self._replayed(key, descend, [self.flat, self.curvature, self.constant, *rows])
        return value, gradient

    def _replayed(self, key: object, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of a function of tensors, from the second time on by its kernels alone where that is possible."""
        if key in self.tapes:
            tape = self.tapes[key]
            return function(*inputs) if tape is None else tape(*inputs)
        if key not in self.seen:
            self.seen.add(key)
            return function(*inputs)
        try:
            tape = self.tapes[key] = Tape(function, inputs)
            return tape.taken()
        except NotReplayableError:
            self.tapes[key] = None
            return function(*inputs)

    @torch.no_grad()
    def evaluate(self, rows: Rows) -> list[Evaluation]:
        """Eta and NLL of every row, of each member."""
        size = self._block

        def values(parameters: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
            return self._call(parameters, lambda objective: [_seen(objective, part) for part in rows.blocks(size)])

        etas, nlls = zip(*vmap(values)(self._named(self.flat)), strict=True)
        return [Evaluation(*pair) for pair in zip(torch.cat(etas, 1), torch.cat(nlls, 1), strict=True)]

    @torch.no_grad()
    def figures(self, rows: Rows, metrics: Sequence[Metric]) -> list[dict[str, float]]:
        """The figures of each member on the rows, as its module has them."""
        if self.together is None:
            self.together = [self._is_batchable(metric, rows.take(slice(0, _FEW))) for metric in metrics]
        batched = [metric for metric, together in zip(metrics, self.together, strict=True) if together]
        alone = [metric for metric, together in zip(metrics, self.together, strict=True) if not together]
        values = self._compute(batched, rows) if batched else {}
        lists = [value.double().tolist() for value in values.values()]
        found = [dict(zip(values, numbers, strict=True)) for numbers in zip(*lists, strict=True)]
        found = found or [{} for _ in self.objectives]
        for figures, objective in zip(found, self.objectives, strict=True) if alone else ():
            numbers = _computed(objective, rows.blocks(_BLOCK), alone)
            figures |= {name: float(value) for name, value in numbers.items()}
        return found

    def _compute(self, metrics: Sequence[Metric], rows: Rows) -> dict[str, Tensor]:
        def values(parameters: dict[str, Tensor]) -> Any:
            return self._call(parameters, lambda objective: _computed(objective, rows.blocks(self._block), metrics))

        found: dict[str, Tensor] = vmap(values)(self._named(self.flat))
        return found

    def _is_batchable(self, metric: Metric, rows: Rows) -> bool:
        """Whether a metric is made of operations that exist for many members at once."""
        try:
            self._compute([metric], rows)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            return False
        return True

    @property
    def _block(self) -> int:
        return max(1, _BLOCK // len(self.objectives))

    def _call(self, parameters: dict[str, Tensor], function: Callable[[Objective], Any]) -> Any:
        named = {f"objective.{name}": value for name, value in parameters.items()}
        return functional_call(_Call(self.objectives[0]), named, (function,))

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = zip(self.names, flat.split(self.sizes, dim=1), self.shapes, strict=True)
        return {name: part.view(len(flat), *shape) for name, part, shape in parts}

    def _adopt(self) -> None:
        for row, objective in zip(self.flat, self.objectives, strict=True):
            for p, part in zip(objective.parameters(), row.split(self.sizes), strict=True):
                p.data = part.view(p.shape)

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype).unsqueeze(1)


def _computed(objective: Objective, blocks: Iterable[Rows], metrics: Sequence[Metric]) -> dict[str, Tensor]:
    accumulator = Accumulator(metrics)
    for part in blocks:
        distribution = objective.head(objective.eta(part.x, part.offset))
        accumulator.add(accumulator.of_block(distribution, part.y, part.weight))
    return accumulator.figures()


def _seen(objective: Objective, rows: Rows) -> tuple[Tensor, Tensor]:
    eta = objective.eta(rows.x, rows.offset)
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
