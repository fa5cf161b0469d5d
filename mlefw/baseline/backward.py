"""From what rows say of their eta, and a prior of the weights, back to gradients in theta."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.derivatives import product
from mlefw.prior.base import Prior


class Backward:
    """Adds up Σ_i s_i ⊗ z_i for predicted columns and Σ_i s_i for shared ones, z being the standardised features.

    Rows come with their features as they are, or less their mean, which then is given as zero: the rest of the
    standardisation is done once, on the sums.

    Args:
        gain: of the complete eta, (eta_dim + shared_dim,).
        eta_dim: number of predicted columns.
        mean: subtracted from the features, (num_active,).
        scale: what they are divided by, (num_active,).
    """

    def __init__(self, gain: Tensor, eta_dim: int, mean: Tensor, scale: Tensor) -> None:
        self.gain, self.eta_dim, self.mean, self.scale = gain, eta_dim, mean, scale
        self._cross = torch.zeros(eta_dim, len(mean), dtype=torch.float64)
        self._across = torch.zeros_like(gain)

    def add(self, features: Tensor, slope: Tensor) -> None:
        """Add rows with these features (n, num_active) and derivatives in their complete eta (n, columns)."""
        predicted = slope[:, : self.eta_dim]
        # Of several columns the transposed product is twice as fast as the product of the transposed features.
        self._cross += product(features.T, predicted).T if self.eta_dim == 1 else predicted.T @ features
        self._across += slope.sum(0)

    def theta(self) -> Tensor:
        """The sum in the layout of theta."""
        predicted, gain = self._across[: self.eta_dim].unsqueeze(1), self.gain[: self.eta_dim].unsqueeze(1)
        cross = (self._cross - predicted * self.mean) / self.scale
        table = gain * torch.cat([cross, predicted], 1)
        return torch.cat([table.reshape(-1), (self.gain * self._across)[self.eta_dim :]])


class Penalty(NamedTuple):
    """A prior per observation: value, gradient (size,) and curvature (size,), a prior being a product over weights."""

    value: float
    gradient: Tensor
    curvature: Tensor


def penalty(prior: Prior, theta: Tensor, weights_of: Callable[[Tensor], Tensor], population: float) -> Penalty:
    """The part of an objective that is the prior's; its gradient and curvature are those of the smooth part."""
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
