"""Exact linear estimates with one feature, and their predictions."""

from dataclasses import replace

import numpy as np
import torch
from torch.distributions import Distribution

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows


def as_rows(x: np.ndarray, y: np.ndarray) -> Rows:
    """Rows of one feature x (n,) and target y (n,), with weight 1 and offset 0."""
    ones = torch.ones(len(x), dtype=torch.float64)
    return Rows(torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y), ones, torch.zeros_like(ones))


def solve(head: Head, rows: Rows) -> Solution:
    """The exact maximum likelihood estimate, with coefficients in units of x and y."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return LinearBaseline().solve(Problem.of(head, rows, zero, one, NoPrior()))


def predicted(solution: Solution, rows: Rows) -> Distribution:
    """The predictive distribution of each row under an estimate, of batch shape (n,)."""
    eta = torch.cat([eta for _, _, eta in replace(solution.problem, rows=rows).etas(solution.theta)])
    return solution.problem.head.distribution(eta)
