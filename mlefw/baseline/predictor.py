"""An exact estimate as a trained linear model, so that everything that reads a model reads it too."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.rows.standardize import Standardized


class Estimate(NamedTuple):
    """All that a linear model says, in 64 bits: what is kept of an exact estimate.

    Shapes: weight (eta_dim, num_features), bias (eta_dim,), shared (shared_dim,); mean and scale of the features;
    center and gain of the complete eta, which theta counts from; the floor of the scales that it was found with.
    """

    weight: Tensor
    bias: Tensor
    shared: Tensor
    mean: Tensor
    scale: Tensor
    center: Tensor
    gain: Tensor
    floor: Tensor

    @classmethod
    def of(cls, solution: Solution, objective: Objective) -> "Estimate":
        """That of a solution; where there is no maximum, with the floor of the run's own head."""
        problem = solution.problem
        # A maximum of the likelihood is one without the floor that keeps a network from collapsing.
        floor = _floor(solution) if solution.exists is not False else objective.head.floor
        parts = (*full_weight(solution), problem.mean, problem.scale, problem.head.center, problem.head.gain, floor)
        return cls(*(part.detach().double().cpu().clone() for part in parts))

    def as_objective(self, objective: Objective) -> Objective:
        """The objective of a run with its network replaced by the linear model, in float64 on the CPU."""
        eta_dim, num_features = self.weight.shape
        linear = Linear(num_features, eta_dim).double()
        linear.load(self.weight, self.bias)
        head = deepcopy(objective.head).double().cpu()
        # Theta counts from the origin of its own problem: the null model was solved before the head was placed at it.
        for buffer, value in ((head.center, self.center), (head.gain, self.gain), (head.floor, self.floor)):
            buffer.copy_(value)
        with torch.no_grad():
            head.shared.copy_(self.shared)
        model = Standardized(linear, self.mean, self.scale)
        return Objective(model, head, objective.prior, objective.population).requires_grad_(False)


def as_objective(solution: Solution, objective: Objective) -> Objective:
    """A solution as the objective of a run with another network."""
    return Estimate.of(solution, objective).as_objective(objective)


def _floor(solution: Solution) -> Tensor:
    """The floor that the estimate was found with, for each of several targets its own."""
    if not solution.parts:
        return solution.problem.head.floor
    return torch.stack([_floor(part) for part in solution.parts])
