"""The figures of a split: sums over blocks of rows, transferred once from the device to the host."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.distributed import ranks
from mlefw.distribution.precision import is_mixed_precision
from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.objective.gradient import is_replayable
from mlefw.objective.objective import Objective
from mlefw.objective.replay import Replay
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.system.torch_internals import has_pass_hooks

_MIN_USES = 8
"""Blocks of one shape that are evaluated as usual before the next one is recorded."""

_MAX_TAPES = 8
"""The most block shapes that are recorded."""


class Evaluator:
    """Adds up blocks of rows under the objective's present parameters, and computes every metric from the sums.

    Where objective and metrics allow it, a block is evaluated by replaying recorded kernels (`Tape`): for some thousand
    rows calling them from Python takes longer than they run. All sums come to the host in one transfer, and figures are
    computed there.

    Args:
        objective: has to be in evaluation mode whenever rows are added.
        metrics: the metrics of one split.
    """

    def __init__(self, objective: Objective, metrics: Sequence[Metric]) -> None:
        self.objective, self.accumulator = objective, Accumulator(metrics)
        self.replay = Replay(_MIN_USES, _MAX_TAPES)
        self.is_replayable = is_replayable(objective) and all(map(is_replayable, self.accumulator.parts))

    @property
    def is_empty(self) -> bool:
        """Whether no block was added since `figures` was last called."""
        return self.accumulator.sums is None

    @torch.no_grad()
    def add(self, block: Batch) -> None:
        """Add a block of rows."""
        self.accumulator.add(self._sums(block))

    def figures(self) -> dict[str, float]:
        """Every metric over the rows added in all processes, by name; then start anew with the next block."""
        sums = self.accumulator.packed()
        ranks.all_reduce([sums])
        self.accumulator.unpack(sums.cpu())
        values = self.accumulator.figures()
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def _sums(self, block: Batch) -> list[Tensor]:
        """The sums of all metrics over a block, by a replay where that is possible."""
        rows = block.rows
        # Autocast keeps weights that it has rounded for later blocks: a tape would hold them as constants.
        is_mixed = is_mixed_precision(rows.x.device)
        if not self.is_replayable or is_mixed or has_pass_hooks(self.objective):
            return self._pass(block)
        key = (rows.x.shape, rows.x.dtype, rows.x.device, rows.y.shape, rows.y.dtype, block.standardized)
        return list(self.replay(key, lambda *columns: self._pass(block._replace(rows=Rows(*columns))), rows))

    def _pass(self, block: Batch) -> list[Tensor]:
        """The sums of all metrics over a block, by a forward pass."""
        rows = block.rows
        eta = self.objective.eta(rows.x, rows.offset, block.standardized)
        eta, y, weight = self.objective.observations(rows, eta)
        return self.accumulator.of_block(self.objective.head(eta), y, weight, rows.num_rows if rows.positions else None)
