"""Gradients in theta, from the derivatives of rows in their eta and from the prior of the weights."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.derivatives import product
from mlefw.prior.base import Prior


class Backward:
    """Sums Σ_i s_i ⊗ z_i for predicted columns and Σ_i s_i for shared ones, z being the standardised features.

    Rows are added with their original or centred features; standardisation is completed once, on the sums.

    Args:
        gain: gain of the complete eta, (eta_dim + shared_dim,).
        eta_dim: number of predicted columns.
        mean: what has still to be subtracted from the features, (num_active,); zero for centred ones.
        scale: what the features have to be divided by, (num_active,).
    """

    def __init__(self, gain: Tensor, eta_dim: int, mean: Tensor, scale: Tensor) -> None:
        self.gain, self.eta_dim, self.mean, self.scale = gain, eta_dim, mean, scale
        self._cross = torch.zeros(eta_dim, len(mean), dtype=torch.float64)
        self._across = torch.zeros_like(gain)

    def add(self, features: Tensor, slope: Tensor) -> None:
        """Add rows with features (n, num_active) and derivatives in their complete eta (n, eta_dim + shared_dim)."""
        predicted = slope[:, : self.eta_dim]
        # For several columns, predicted.T @ features is twice as fast as features.T @ predicted.
        self._cross += product(features.T, predicted).T if self.eta_dim == 1 else predicted.T @ features
        self._across += slope.sum(0)

    def theta(self) -> Tensor:
        """The sums in the layout of theta, (size,)."""
        predicted, gain = self._across[: self.eta_dim].unsqueeze(1), self.gain[: self.eta_dim].unsqueeze(1)
        cross = (self._cross - predicted * self.mean) / self.scale
        table = gain * torch.cat([cross, predicted], 1)
        return torch.cat([table.reshape(-1), (self.gain * self._across)[self.eta_dim :]])


class Penalty(NamedTuple):
    """A penalty per observation: value, gradient (size,), and the diagonal of its Hessian (size,)."""

    value: float
    gradient: Tensor
    curvature: Tensor


def penalty(prior: Prior, theta: Tensor, weights_of: Callable[[Tensor], Tensor], population: float) -> Penalty:
    """The penalty of a prior at theta; gradient and curvature are of its smooth part.

    Args:
        prior: the prior of the weights.
        theta: the point, (size,).
        weights_of: the weights in a theta.
        population: what the penalty is divided by.
    """
    gradient, curvature = torch.zeros_like(theta), torch.zeros_like(theta)
    if prior.flat:
        return Penalty(0.0, gradient, curvature)
    with torch.enable_grad():
        leaf = theta.detach().clone().requires_grad_()
        weights = weights_of(leaf)
        value = float(prior(weights).detach())
        smooth = prior.smooth_part(weights)
        if smooth.requires_grad:
            (slope,) = torch.autograd.grad(smooth, leaf, create_graph=True)
            gradient = slope.detach()
            if slope.requires_grad:
                curvature = torch.autograd.grad(slope.sum(), leaf)[0]
    return Penalty(value / population, gradient / population, curvature / population)
