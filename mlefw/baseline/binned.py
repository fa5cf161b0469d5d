"""The histogram head's linear problem, which is that of a categorical head on the bins."""

from dataclasses import replace

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.problem import Problem
from mlefw.head.categorical import CategoricalHead
from mlefw.head.histogram import HistogramHead


def of_bins(problem: Problem) -> Problem:
    """The problem of the class probabilities of the bins, in the same theta."""
    head = problem.head
    assert isinstance(head, HistogramHead)
    classes = CategoricalHead(head.eta_dim).double()
    classes.center.copy_(head.center)
    classes.gain.copy_(head.gain)
    return replace(problem, head=classes, rows=problem.rows._replace(y=head.bin_of(problem.rows.y)))


def of_densities(problem: Problem, solution: Solution) -> Solution:
    """The solution of a histogram's problem from that of its bins: the NLLs differ by log-widths, a constant.

    Args:
        problem: the problem of the histogram head.
        solution: the solution of `of_bins(problem)`, perhaps restricted to some features.
    """
    width = _mean_log_width(problem)
    return replace(
        solution,
        problem=replace(problem, active=solution.problem.active),
        objective=solution.objective + width,
        infimum=None if solution.infimum is None else solution.infimum + width,
        known=None if solution.known is None else solution.known._replace(value=solution.known.value + width),
    )


def _mean_log_width(problem: Problem) -> float:
    """The mean of −log density within the bin of each row, in nats per observation."""
    head, rows = problem.head, problem.rows
    within: Tensor = head.distribution(torch.zeros(1, head.eta_dim, dtype=torch.float64)).log_within(rows.y.double())  # type: ignore[attr-defined]
    return -float(rows.weight @ within) / problem.population
