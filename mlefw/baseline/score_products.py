"""Sums of products of scores, the middle of a sandwich, for several kinds of dependence and leverage of rows.

All go over the rows in blocks: no array has an entry for each row and coefficient.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from mlefw.baseline.derivatives import add_hessian, row_slopes
from mlefw.baseline.problem import Problem
from mlefw.rows.rows import Rows

_BLOCK = 2**20
"""Scores of rows that are held at a time."""

Adjust = Callable[[Rows, Tensor, Tensor, Tensor], Tensor]
"""Maps a block of rows, their design (n, width), complete eta and scores in raw eta (n, K) to other scores (n, K)."""


def independent(problem: Problem, theta: Tensor, adjust: Adjust | None = None) -> Tensor:
    """Σ w s sᵀ over rows that are independent of each other, (size, size).

    s is the gradient of the NLL of a row in theta; weights are frequencies.

    Args:
        problem: the problem.
        theta: the estimate, (size,).
        adjust: gives the scores that are multiplied; by default the scores as they are.
    """
    head = problem.head
    total = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    for rows, design, eta in problem.designs(theta):
        slope = row_slopes(head, eta, rows.y)[1] * head.gain
        slope = slope if adjust is None else adjust(rows, design, eta, slope)
        products = rows.weight.view(-1, 1, 1) * slope.unsqueeze(2) * slope.unsqueeze(1)
        add_hessian(total, design, products, head.eta_dim, torch.empty_like(design))
    return total


def clustered(problem: Problem, theta: Tensor, code: Tensor) -> Tensor:
    """Σ_g S_g S_gᵀ, S_g = Σ w s over the rows of a cluster, (size, size) (Liang & Zeger, 1986).

    Args:
        problem: the problem.
        theta: the estimate, (size,).
        code: the cluster of each row, (n,) int64.
    """
    order = _seen(problem, code.argsort(stable=True))
    code, start = code[order], 0
    total = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    # The last cluster of a block may go on in the next one.
    last, carried = -1, torch.zeros(problem.size, dtype=torch.float64)
    for scores in _scores(problem, theta, order):
        found, at = code[start : start + len(scores)].unique_consecutive(return_inverse=True)
        start += len(scores)
        sums = scores.new_zeros(len(found), problem.size).index_add_(0, at, scores)
        if int(found[0]) == last:
            sums[0] += carried
        else:
            total += torch.outer(carried, carried)
        total += sums[:-1].T @ sums[:-1]
        last, carried = int(found[-1]), sums[-1]
    return total + torch.outer(carried, carried)


def lagged(problem: Problem, theta: Tensor, time: Tensor, lag: int) -> Tensor:
    """Γ_0 + Σ_l (1 − l / (lag + 1)) (Γ_l + Γ_lᵀ), Γ_l = Σ_t s_t s_{t−l}ᵀ, (size, size) (Newey & West, 1987).

    Args:
        problem: the problem, with rows of weight 0 or 1.
        theta: the estimate, (size,).
        time: the time of each row, (n,).
        lag: the largest distance l of two rows in the order of time.
    """
    order = _seen(problem, time.argsort(stable=True))
    total = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    # The weights are those of Σ B Bᵀ / (lag + 1) over sums B of lag + 1 successive scores, with zeros at both ends.
    ends = torch.zeros(lag, problem.size, dtype=torch.float64)
    before = ends
    for scores in chain(_scores(problem, theta, order), [ends]):
        together = torch.cat([before, scores])
        sums = torch.cat([total.new_zeros(1, problem.size), together.cumsum(0)])
        sums = sums[lag + 1 :] - sums[: len(scores)]
        total += sums.T @ sums
        before = together[len(scores) :]
    return total / (lag + 1)


def _seen(problem: Problem, order: Tensor) -> Tensor:
    """An order of rows, without those of weight zero."""
    return order[problem.rows.weight[order] > 0]


def _scores(problem: Problem, theta: Tensor, order: Tensor) -> Iterator[Tensor]:
    """The weighted scores w s of the rows at `order`, in that order, in blocks (n, size)."""
    head, size = problem.head, max(1, _BLOCK // problem.size)
    for index in order.split(size):
        for rows, design, eta in replace(problem, rows=problem.rows.take(index)).designs(theta):
            slope = row_slopes(head, eta, rows.y)[1] * head.gain * rows.weight.unsqueeze(1)
            predicted = slope[:, : head.eta_dim].unsqueeze(2) * design.unsqueeze(1)
            yield torch.cat([predicted.flatten(1), slope[:, head.eta_dim :]], 1)
