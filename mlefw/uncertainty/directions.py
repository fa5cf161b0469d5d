"""The parameters whose uncertainty is kept, and the derivative of a row's complete eta with respect to them."""

from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from mlefw.baseline.derivatives import add_hessian
from mlefw.baseline.refit import last_layer_features
from mlefw.errors import UsageError
from mlefw.model.base import HasLastLayer
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized, feature_statistics

_BLOCK = 2**22
"""Number of values in a block of Jacobians: 32 megabytes."""


class Directions(ABC):
    """J, the derivative of a row's complete eta with respect to `size` parameters, the last being the shared ones.

    Everything is in float64 on the CPU, with the model in evaluation mode.
    """

    size: int
    """Number of parameters."""

    @abstractmethod
    def prior_precision(self, prior: Prior) -> Tensor:
        """Second derivatives of −log p in each parameter, (size,); a prior has no mixed ones."""

    @abstractmethod
    def add_information(self, total: Tensor, rows: Rows, curvature: Tensor) -> None:
        """Add Σ_i J_i' B_i J_i to `total` (size, size), for curvature B (n, columns, columns)."""

    @abstractmethod
    def movement(self, rows: Rows, root: Tensor) -> Tensor:
        """J_i root for each row, (n, columns, k), for root (size, k)."""


class LastLayer(Directions):
    """For each eta column, a weight for each input of the last layer and a bias; then the shared parameters.

    The inputs are standardised by `mean` and `scale`, which changes the coordinates but not the model: inputs far from
    zero would be nearly collinear with the bias.
    """

    def __init__(self, objective: Objective, mean: Tensor, scale: Tensor) -> None:
        self.objective, self.mean, self.scale = objective, mean, scale
        self.last, self.head = last_layer(objective), objective.head
        self.width = self.last.in_features + 1
        self.size = self.head.eta_dim * self.width + self.head.shared_dim

    @classmethod
    def of(cls, objective: Objective, train: Rows) -> "LastLayer":
        """The directions with inputs standardised by their statistics over the first 16384 training rows."""
        none = torch.zeros(0, dtype=torch.float64)
        first = train.take(slice(0, 16384))
        rows = first._replace(x=cls(objective, none, none).features(first))
        return cls(objective, *feature_statistics(rows, True))

    def features(self, rows: Rows) -> Tensor:
        """The inputs of the last layer, (n, in_features).

        Raises:
            UsageError: a forward pass does not go through the layer exactly once.
        """
        found = last_layer_features(self.objective.model, self.last, rows)
        if found is None:
            raise UsageError(
                "uncertainty=laplace: a forward pass does not go through the model's layer `last` exactly once: "
                "expected uncertainty.weights=full"
            )
        return found[0]

    def prior_precision(self, prior: Prior) -> Tensor:
        """Second derivatives of −log p in each parameter, (size,), in the coordinates of standardised inputs."""
        weight = second_derivatives(prior, self.last.weight) / self.scale.square()
        table = torch.cat([weight, weight.new_zeros(len(weight), 1)], 1)
        return torch.cat([table.reshape(-1), weight.new_zeros(self.head.shared_dim)])

    def add_information(self, total: Tensor, rows: Rows, curvature: Tensor) -> None:
        """Add Σ_i J_i' B_i J_i to `total` (size, size), a block for each pair of eta columns."""
        design, gain = self._design(rows), self.head.gain.cpu()
        weighted = curvature * (gain * gain.unsqueeze(1))
        add_hessian(total, design, weighted, self.head.eta_dim, torch.empty_like(design))

    def movement(self, rows: Rows, root: Tensor) -> Tensor:
        """J_i root for each row, (n, columns, k); each eta column depends on its own weights only."""
        design, gain, eta_dim = self._design(rows), self.head.gain.cpu(), self.head.eta_dim
        table, shared = root[: eta_dim * self.width].view(eta_dim, self.width, -1), root[eta_dim * self.width :]
        parts = [gain[k] * (design @ table[k]) for k in range(eta_dim)]
        parts += [(gain[eta_dim + s] * row).expand(len(design), -1) for s, row in enumerate(shared)]
        return torch.stack(parts, 1)

    def _design(self, rows: Rows) -> Tensor:
        z = (self.features(rows) - self.mean) / self.scale
        return torch.cat([z, z.new_ones(len(z), 1)], 1)


class AllWeights(Directions):
    """Every trainable parameter of the model, in the order of `named_parameters`; then the shared parameters."""

    def __init__(self, objective: Objective) -> None:
        self.head, self.model = objective.head, deepcopy(objective.model).double().cpu().eval()
        self.parameters = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        self.rest = {name: p.detach() for name, p in self.model.named_parameters() if not p.requires_grad}
        self.size = sum(p.numel() for p in self.parameters.values()) + self.head.shared_dim

    def prior_precision(self, prior: Prior) -> Tensor:
        """Second derivatives of −log p, (size,); zero for tensors of one dimension, which have a flat prior."""
        flat = [
            second_derivatives(prior, p).reshape(-1) if p.ndim >= 2 else torch.zeros(p.numel(), dtype=torch.float64)
            for p in self.parameters.values()
        ]
        return torch.cat([*flat, torch.zeros(self.head.shared_dim, dtype=torch.float64)])

    def add_information(self, total: Tensor, rows: Rows, curvature: Tensor) -> None:
        """Add Σ_i J_i' B_i J_i to `total` (size, size), a block of rows at a time."""
        for start, jacobian in self._jacobians(rows):
            part = curvature[start : start + len(jacobian)] @ jacobian
            total += jacobian.flatten(0, 1).T @ part.flatten(0, 1)

    def movement(self, rows: Rows, root: Tensor) -> Tensor:
        """J_i root for each row, (n, columns, k), a block of rows at a time."""
        return torch.cat([jacobian @ root for _, jacobian in self._jacobians(rows)])

    def _jacobians(self, rows: Rows) -> "list[tuple[int, Tensor]] | map[tuple[int, Tensor]]":
        columns = self.head.eta_dim + self.head.shared_dim
        size = max(1, _BLOCK // (columns * self.size))
        return map(lambda start: (start, self._jacobian(rows.x[start : start + size])), range(0, rows.num_rows, size))

    def _jacobian(self, x: Tensor) -> Tensor:
        def raw(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
            out: Tensor = functional_call(self.model, {**parameters, **self.rest}, (row.unsqueeze(0),))
            return out.squeeze(0)

        slopes = vmap(jacrev(raw), in_dims=(None, 0))(self.parameters, x.double().cpu())
        flat = torch.cat([slopes[name].flatten(2) for name in self.parameters], -1)
        gain, eta_dim, num_shared = self.head.gain.cpu(), self.head.eta_dim, self.head.shared_dim
        jacobian = flat.new_zeros(len(x), eta_dim + num_shared, self.size)
        jacobian[:, :eta_dim, : flat.shape[-1]] = gain[:eta_dim].unsqueeze(1) * flat
        jacobian[:, eta_dim:, flat.shape[-1] :] = torch.diag(gain[eta_dim:])
        return jacobian


def last_layer(objective: Objective) -> nn.Linear:
    """The last layer of a model, with a bias and an output for each eta column.

    Raises:
        UsageError: the model names no `last` layer, or one without a bias or of another width.
    """
    model = objective.model.model if isinstance(objective.model, Standardized) else objective.model
    last = model.last if isinstance(model, HasLastLayer) else None
    if not isinstance(last, nn.Linear) or last.bias is None or last.out_features != objective.head.eta_dim:
        raise UsageError(
            f"uncertainty=laplace: {type(model).__name__} names no `last` linear layer with a bias: "
            "expected uncertainty.weights=full"
        )
    return last


def second_derivatives(prior: Prior, w: Tensor) -> Tensor:
    """Second derivatives of −log p in each entry of w, shaped like w, in float64 on the CPU."""
    leaf = w.detach().double().cpu().clone().requires_grad_()
    if prior.flat or not w.numel():
        return torch.zeros_like(leaf, requires_grad=False)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(prior.smooth_part(leaf), leaf, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(leaf, requires_grad=False)
        return torch.autograd.grad(slope.sum(), leaf)[0]
