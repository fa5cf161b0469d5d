"""A run's objective without a run: from arrays to a model at its exact estimate."""

import numpy as np
import torch

from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.predictor import as_objective
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized, feature_statistics, target_statistics
from mlefw.run.placement import place


def rows_of(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, offset: np.ndarray | None = None) -> Rows:
    """Coded rows."""
    n = len(x)
    columns = (np.ones(n) if weight is None else weight, np.zeros(n) if offset is None else offset)
    return Rows(torch.tensor(x), torch.tensor(y), *map(torch.tensor, columns))


def placed(head: Head, rows: Rows, model: torch.nn.Module, prior: Prior | None = None) -> Objective:
    """An objective at the null model, in the units of the target."""
    if head.target == "numeric":
        head.set_units(*target_statistics(rows))
    mean, scale = feature_statistics(rows, True)
    head = place(head, solve_null(Problem.of(head, rows, mean, scale, NoPrior())))
    return Objective(Standardized(model, mean, scale), head, prior or NoPrior(), rows.population).eval()


def at_estimate(head: Head, rows: Rows, prior: Prior | None = None) -> Objective:
    """The linear model at its exact estimate, its weights trainable."""
    objective = placed(head, rows, Linear(rows.x.shape[1], head.eta_dim), prior)
    model = objective.model
    problem = Problem.of(objective.head, rows, model.mean, model.scale, objective.prior)
    solution = LinearBaseline().solve(problem)
    assert solution.exists
    return as_objective(solution, objective).requires_grad_(True)
