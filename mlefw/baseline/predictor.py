"""An exact estimate as a trained linear model, so that everything that reads a model reads it too."""

from copy import deepcopy

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.model.linear import Linear
from mlefw.objective import Objective
from mlefw.standardize import Standardized


def _floor(solution: Solution) -> torch.Tensor:
    """The floor that the estimate was found with, for each of several targets its own."""
    if not solution.parts:
        return solution.problem.head.floor
    return torch.stack([_floor(part) for part in solution.parts])


def as_objective(solution: Solution, objective: Objective) -> Objective:
    """The objective of a run with its network replaced by the exact linear model, in float64 on the CPU."""
    weight, bias, shared = full_weight(solution)
    eta_dim, num_features = weight.shape
    linear = Linear(num_features, eta_dim).double()
    linear.load(weight, bias)
    head = deepcopy(objective.head).double().cpu()
    # Theta counts from the origin of its own problem: the null model was solved before the head was placed at it.
    head.center.copy_(solution.problem.head.center)
    head.gain.copy_(solution.problem.head.gain)
    if solution.exists is not False:
        # A maximum of the likelihood is one without the floor that keeps a network from collapsing.
        head.floor.copy_(_floor(solution))
    with torch.no_grad():
        head.shared.copy_(shared)
    model = Standardized(linear, solution.problem.mean, solution.problem.scale)
    return Objective(model, head, objective.prior, objective.population).requires_grad_(False)
