"""The intercept-only categorical model: class frequencies, in closed form."""

import torch

from mlefw.baseline import nonexistence
from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.problem import Problem
from mlefw.head.categorical import CategoricalHead

_HALF = 0.5
"""Added to each count where a class has no rows, whose logarithm would be infinite (Jeffreys, 1946)."""


class Frequencies(Solver):
    """Logits that are the logarithms of the class shares: one pass, also for ten thousand classes.

    Where a class has no rows there is no maximum; then ½ is added to each count, which gives finite logits within a
    fraction of a nat of the infimum.
    """

    def supports(self, problem: Problem) -> bool:
        """Whether the head is categorical, without features, prior and offset."""
        flat = problem.prior.flat and not problem.num_active
        return flat and isinstance(problem.head, CategoricalHead) and not problem.has_offset

    def work(self, problem: Problem) -> float:
        """One pass over the rows."""
        return float(problem.rows.num_rows)

    def solve(self, problem: Problem) -> Solution:
        """The frequencies, which satisfy the score equations to rounding."""
        head, rows = problem.head, problem.rows
        count = torch.zeros(head.eta_dim, dtype=torch.float64)
        count.index_add_(0, rows.y.long(), rows.weight.double())
        known = count[count > 0]
        share = known / known.sum()
        lowest = -float((share * share.log()).sum())
        if len(known) == head.eta_dim:
            theta = _logits(problem, count)
            residual = float(((theta * head.gain + head.center).softmax(0) - share).abs().max())
            return Solution(
                problem, theta, lowest, residual, "closed form", 1, is_global=True, exists=True, shown_by="closed form"
            )
        return Solution(
            problem,
            _logits(problem, count + _HALF),
            lowest,
            float("inf"),
            "closed form",
            1,
            converged=False,
            exists=False,
            reason=nonexistence.one_value(problem) or nonexistence.empty_class(problem),
            infimum=lowest,
        )


def _logits(problem: Problem, count: torch.Tensor) -> torch.Tensor:
    """Raw outputs for these class counts, the reference being zero."""
    head = problem.head
    raw = (count.log() - head.center) / head.gain
    return raw - raw[0]
