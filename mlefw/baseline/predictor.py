"""An exact estimate as a trained linear model, so that predictions and metrics apply to it."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlefw.baseline.arrays import LinearOfArrays
from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized


class Estimate(NamedTuple):
    """An exact estimate as it is stored: the tensors of a linear model, in float64.

    Attributes:
        weight: (eta_dim, num_features).
        bias: (eta_dim,).
        shared: shared raw values, (shared_dim,).
        mean: means that standardise the features, (num_features,).
        scale: scales that standardise the features, (num_features,).
        center: center of the complete eta, (eta_dim + shared_dim,).
        gain: gain of the complete eta, (eta_dim + shared_dim,).
        floor: floor of the scales under which the estimate was found.
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
        """The estimate of a solution; if there is no maximum, with the floor of the run's own head."""
        problem = solution.problem
        # A maximum is one of the likelihood without the floor, which is for networks.
        floor = _floor(solution) if solution.may_exist else objective.head.floor
        weight, bias, shared = full_weight(solution)
        parts = (weight, bias, shared, problem.mean, problem.scale, problem.head.center, problem.head.gain, floor)
        return cls(*(part.detach().double().cpu().clone() for part in parts))

    def as_objective(self, objective: Objective) -> Objective:
        """The objective of a run with its network replaced by the linear model, in float64 on the CPU."""
        eta_dim, num_features = self.weight.shape
        linear = Linear(num_features, eta_dim).double()
        linear.load(self.weight, self.bias)
        head = deepcopy(objective.head).double().cpu()
        # The null model was solved before the run's head got its center, so theta needs the center of its own problem.
        for buffer, value in ((head.center, self.center), (head.gain, self.gain), (head.floor, self.floor)):
            buffer.copy_(value)
        with torch.no_grad():
            head.shared.copy_(self.shared)
        model: nn.Module = Standardized(linear, self.mean, self.scale)
        shape = getattr(objective.model, "shape", None)
        if isinstance(shape, RowShape):
            model = LinearOfArrays(linear, self.mean, self.scale, shape.positions)
        return Objective(model, head, objective.prior, objective.population).requires_grad_(False)


def as_objective(solution: Solution, objective: Objective) -> Objective:
    """The objective of a run with its network replaced by the linear model of a solution."""
    return Estimate.of(solution, objective).as_objective(objective)


def _floor(solution: Solution) -> Tensor:
    """The floor under which the estimate was found, a scalar, or (num_targets,) for several targets."""
    if not solution.parts:
        return solution.problem.head.floor
    return torch.stack([_floor(part) for part in solution.parts])
