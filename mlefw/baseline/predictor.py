"""An exact estimate as a trained linear model, so that predictions and metrics apply to it."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlefw.baseline.arrays import LinearOfArrays
from mlefw.baseline.base import Solution
from mlefw.baseline.feature_map import LAST_LAYER, FeatureMap
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

    def as_objective(self, objective: Objective, features: FeatureMap | None = None) -> Objective:
        """The objective of a run with its network replaced by the linear model, in float64 on the CPU.

        Args:
            objective: the objective of the run.
            features: the map whose columns the estimate is of, for rows of arrays; None without columns.
        """
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
        if features is not None and features.setting == LAST_LAYER:
            model = self._refitted(objective)
        elif isinstance(shape, RowShape):
            model = LinearOfArrays(linear, self.mean, self.scale, shape.positions, features)
        return Objective(model, head, objective.prior, objective.population).requires_grad_(False)

    @torch.no_grad()
    def _refitted(self, objective: Objective) -> nn.Module:
        """The network of a run with the estimate in place of its last layer, in float64 on the CPU."""
        model = deepcopy(objective.model).double().cpu().eval()
        last = model.model.last  # type: ignore[union-attr]
        last.weight.copy_(self.weight / self.scale)  # type: ignore[operator, union-attr]
        last.bias.copy_(self.bias - self.weight @ (self.mean / self.scale))  # type: ignore[operator, union-attr]
        return model


def as_objective(solution: Solution, objective: Objective) -> Objective:
    """The objective of a run with its network replaced by the linear model of a solution."""
    return Estimate.of(solution, objective).as_objective(objective, solution.problem.features)


def _floor(solution: Solution) -> Tensor:
    """The floor under which the estimate was found, a scalar, or (num_targets,) for several targets."""
    if not solution.parts or not solution.problem.head.floor.ndim:
        return solution.problem.head.floor
    return torch.stack([_floor(part) for part in solution.parts])
