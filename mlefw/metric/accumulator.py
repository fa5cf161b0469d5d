"""The sums behind figures, added up over blocks of rows."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric, bare, of_dependent, seen_by


class Accumulator:
    """Adds up what metrics sum over rows, and computes their figures from it.

    The metrics hold no state between calls, so that several accumulators may share them. Whoever wants the sums of a
    block by another way (recorded kernels, many networks at once) hands them to `add`.

    Args:
        metrics: their states are sums that `Metric.add_sum` declared, and nothing else.

    Attributes:
        has_positions: whether rows of several observations were added, which need not be independent within a row.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = list(metrics)
        # Those of several targets hold the metrics of each.
        self.parts = [part for metric in metrics for part in metric.modules() if isinstance(part, Metric)]
        self.places = [(part, name, getattr(part, name).shape) for part in self.parts for name in part.sum_names]
        self.sums: list[Tensor] | None = None
        self.has_positions = False

    def of_block(
        self, distribution: Distribution, y: Tensor, weight: Tensor, num_rows: int | None = None
    ) -> list[Tensor]:
        """The states of all metrics after the observations of one block, in float64, one for each of `places`.

        They stay apart, since some (a population) depend on no parameter: a metric may look at the value of these even
        where many networks are evaluated at once.

        Shapes: a distribution of batch shape (m,), y (m, *event_shape), weight (m,).

        Args:
            distribution: of all observations.
            y: the targets.
            weight: the weights.
            num_rows: number of rows that the m positions are of, row by row; None where each row is one observation.
        """
        self.has_positions = num_rows is not None
        for metric in self.metrics:
            metric.reset()
            seen = seen_by(metric, distribution)
            if num_rows is not None and metric.takes_rows:
                bare(metric.update)(seen, y, weight, num_rows)
            else:
                bare(metric.update)(seen, y, weight)
        return [getattr(part, name) for part, name, _ in self.places]

    def add(self, states: Sequence[Tensor]) -> None:
        """Add the sums of a block."""
        if self.sums is None:
            # Copies: recorded kernels write to the same tensors again.
            self.sums = [state.clone() for state in states]
        else:
            self.sums = [total + state for total, state in zip(self.sums, states, strict=True)]

    def packed(self) -> Tensor:
        """The sums one behind the other, (num_sums,), so that they travel in one piece."""
        assert self.sums is not None
        return torch.cat([total.reshape(-1) for total in self.sums])

    def unpack(self, packed: Tensor) -> None:
        """Go on with these sums in place of those added."""
        values = packed.split([shape.numel() for _, _, shape in self.places])
        self.sums = [value.view(shape) for value, (_, _, shape) in zip(values, self.places, strict=True)]

    def figures(self) -> dict[str, Tensor]:
        """Every metric over the blocks added, scalars by their names; the next block is the first of other figures."""
        assert self.sums is not None
        for (part, name, _), total in zip(self.places, self.sums, strict=True):
            # Two classes ask first whether it is a parameter, which takes as long as a metric.
            part.__dict__[name] = total
        self.sums = None
        found: dict[str, Tensor] = {}
        for metric in self.metrics:
            found |= bare(metric.compute)()
        return of_dependent(found) if self.has_positions else found
