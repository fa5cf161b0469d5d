"""The linear estimation problem: a head, a prior and the training rows, as one smooth objective of a vector theta."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.prior.base import Prior
from mlefw.rows import Rows


class Derivatives(NamedTuple):
    """Objective (a number), its gradient (size,) and Hessian (size, size), in nats per observation."""

    value: float
    gradient: Tensor
    hessian: Tensor


@dataclass(frozen=True)
class Problem:
    """The objective of a linear model, in the very parameters that training descends.

    theta holds, for each predicted eta column, a weight for each active feature (standardised as the network sees it)
    and a bias; then one raw number for each shared parameter: (eta_dim · (num_active + 1) + shared_dim,).
    All in float64 on the CPU; x is read block by block and never copied whole.
    """

    head: Head
    rows: Rows
    mean: Tensor
    scale: Tensor
    prior: Prior
    active: Tensor
    population: float
    block: int = 16384

    @classmethod
    def of(cls, head: Head, rows: Rows, mean: Tensor, scale: Tensor, prior: Prior) -> "Problem":
        """The problem over all features; the head is copied, its scales free of their floor, its shared values zero."""
        free = deepcopy(head).double().cpu()
        free.floor.zero_()
        torch.nn.init.zeros_(free.shared)
        rows = Rows(*(column.cpu() for column in rows))
        active = torch.arange(rows.x.shape[1])
        return cls(free, rows, mean.double().cpu(), scale.double().cpu(), prior, active, rows.population)

    def restricted(self, active: Tensor) -> "Problem":
        """The same on some of the features; with none it is the null model."""
        return replace(self, active=active)

    @property
    def num_active(self) -> int:
        """Number of features that take part."""
        return len(self.active)

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.head.eta_dim * (self.num_active + 1) + self.head.shared_dim

    @property
    def free(self) -> Tensor:
        """Which entries of theta are free, (size,): where a shift of all eta columns changes nothing, one stays at 0.

        Without a prior that is the whole reference column; under a prior, which settles the weights, its bias alone.
        """
        free = torch.ones(self.size, dtype=torch.bool)
        if self.head.reference is not None:
            table = free[: self.head.eta_dim * (self.num_active + 1)].view(self.head.eta_dim, -1)
            table[self.head.reference, 0 if self.prior.flat else self.num_active :] = False
        return free

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (eta_dim, num_active), biases (eta_dim,), shared raw values (shared_dim,)."""
        table = theta[: self.size - self.head.shared_dim].view(self.head.eta_dim, self.num_active + 1)
        return table[:, :-1], table[:, -1], theta[self.size - self.head.shared_dim :]

    def with_scale(self, beta: Tensor, raw_scale: float) -> Tensor:
        """Theta of a location-scale head: its location's weights and bias, and a scale in units of the raw output.

        A scale that is given rather than learnt is no part of theta.
        """
        if not self.head.shared_dim:
            return beta
        log_scale = math.log(raw_scale * float(self.head.gain[0]))
        shared = (log_scale - float(self.head.center[1])) / float(self.head.gain[1])
        return torch.cat([beta, beta.new_tensor([shared])])

    def design(self, rows: Rows) -> Tensor:
        """Standardised active features and a column of ones, (n, num_active + 1)."""
        x = rows.x if self.num_active == rows.x.shape[1] else rows.x[:, self.active]
        z = torch.empty(rows.num_rows, self.num_active + 1, dtype=torch.float64)
        torch.sub(x, self.mean[self.active], out=z[:, :-1])
        z[:, :-1] /= self.scale[self.active]
        z[:, -1] = 1.0
        return z

    def eta(self, theta: Tensor, design: Tensor, offset: Tensor) -> Tensor:
        """The complete eta of rows, (n, eta_dim + shared_dim)."""
        eta = self.head.center + self.movement(theta, design)
        eta[:, 0] += offset
        return eta

    def movement(self, direction: Tensor, design: Tensor) -> Tensor:
        """By how much a direction of theta moves the complete eta of rows, (n, eta_dim + shared_dim)."""
        table = direction[: self.size - self.head.shared_dim].view(self.head.eta_dim, -1)
        shared = direction[self.size - self.head.shared_dim :].expand(len(design), self.head.shared_dim)
        return self.head.gain * torch.cat([design @ table.T, shared], 1)

    def etas(self, theta: Tensor) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Rows, design and complete eta, block by block."""
        for rows in self.rows.blocks(self.block):
            design = self.design(rows)
            yield rows, design, self.eta(theta, design, rows.offset)

    @torch.no_grad()
    def value(self, theta: Tensor) -> float:
        """The objective."""
        return self.mean_nll(theta) + float(self._penalty(theta).value)

    @torch.no_grad()
    def mean_nll(self, theta: Tensor) -> float:
        """Σ w·nll / population."""
        total = 0.0
        for rows, _, eta in self.etas(theta):
            total += float((rows.weight * self.head.nll_complete(eta, rows.y)).sum())
        return total / self.population

    def derivatives(self, theta: Tensor, expected: bool = False) -> Derivatives:
        """Objective, gradient and Hessian; with `expected`, the head's information blocks in place of observed ones.

        Raises:
            NotImplementedError: `expected` is asked for and the head states no information.
        """
        total, gradient = 0.0, torch.zeros(self.size, dtype=torch.float64)
        hessian = torch.zeros(self.size, self.size, dtype=torch.float64)
        for rows, design, eta in self.etas(theta):
            nll, slope, curvature = row_derivatives(self.head, eta, rows.y)
            if expected:
                information = self.head.information(eta)
                if information is None:
                    raise NotImplementedError(f"{type(self.head).__name__} states no expected information")
                curvature = information
            total += float((rows.weight * nll).sum())
            gain = self.head.gain
            self._add_gradient(gradient, design, rows.weight.unsqueeze(1) * slope * gain)
            self._add_hessian(hessian, design, rows.weight.view(-1, 1, 1) * curvature * (gain * gain.unsqueeze(1)))
        penalty = self._penalty(theta)
        value = total / self.population + penalty.value
        return Derivatives(
            float(value), gradient / self.population + penalty.gradient, hessian / self.population + penalty.hessian
        )

    @torch.enable_grad()
    def gradient(self, theta: Tensor) -> Tensor:
        """The gradient of the objective, (size,)."""
        gradient = torch.zeros(self.size, dtype=torch.float64)
        for rows, design, eta in self.etas(theta):
            eta.requires_grad_()
            (slope,) = torch.autograd.grad(self.head.nll_complete(eta, rows.y).sum(), eta)
            self._add_gradient(gradient, design, rows.weight.unsqueeze(1) * slope * self.head.gain)
        return gradient / self.population + self._penalty(theta).gradient

    def score_products(self, theta: Tensor) -> Tensor:
        """Σ w·s sᵀ over rows, (size, size), s being a row's gradient of its NLL in theta: weights are frequencies."""
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        for rows, design, eta in self.etas(theta):
            slope = row_gradient(self.head, eta, rows.y) * self.head.gain
            self._add_hessian(total, design, rows.weight.view(-1, 1, 1) * slope.unsqueeze(2) * slope.unsqueeze(1))
        return total

    def _add_gradient(self, gradient: Tensor, design: Tensor, slope: Tensor) -> None:
        predicted = self.size - self.head.shared_dim
        gradient[:predicted] += (slope[:, : self.head.eta_dim].T @ design).reshape(-1)
        gradient[predicted:] += slope[:, self.head.eta_dim :].sum(0)

    def _add_hessian(self, hessian: Tensor, design: Tensor, curvature: Tensor) -> None:
        """Add Σ_i z_i' B_i z_i, a block for each pair of eta columns; a shared column has a design of ones."""
        width, ones = self.num_active + 1, design[:, -1:]
        spans, designs = [], []
        for k in range(self.head.eta_dim):
            spans.append(slice(k * width, (k + 1) * width))
            designs.append(design)
        for s in range(self.head.shared_dim):
            start = self.size - self.head.shared_dim + s
            spans.append(slice(start, start + 1))
            designs.append(ones)
        for k, (rows, left) in enumerate(zip(spans, designs, strict=True)):
            for j in range(k + 1):
                block = left.T @ (curvature[:, k, j].unsqueeze(1) * designs[j])
                hessian[rows, spans[j]] += block
                if j != k:
                    hessian[spans[j], rows] += block.T

    def _penalty(self, theta: Tensor) -> Derivatives:
        """The prior per observation; its Hessian is diagonal, a prior being a product over weights."""
        gradient = torch.zeros(self.size, dtype=torch.float64)
        hessian = torch.zeros(self.size, self.size, dtype=torch.float64)
        if self.prior.flat:
            return Derivatives(0.0, gradient, hessian)
        with torch.enable_grad():
            leaf = theta.detach().clone().requires_grad_()
            weights = self.split(leaf)[0]
            value = float(self.prior(weights).detach())
            smooth = self.prior.smooth_part(weights)
            if smooth.requires_grad:
                (slope,) = torch.autograd.grad(smooth, leaf, create_graph=True)
                gradient = slope.detach()
                if slope.requires_grad:
                    hessian = torch.diag(torch.autograd.grad(slope.sum(), leaf)[0])
        return Derivatives(value / self.population, gradient / self.population, hessian / self.population)


@torch.enable_grad()
def row_derivatives(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NLL (n,), its gradient (n, K) and Hessian (n, K, K) in each row's complete eta (n, K), by autograd."""
    eta = eta.detach().requires_grad_()
    nll = head.nll_complete(eta, y)
    (slope,) = torch.autograd.grad(nll.sum(), eta, create_graph=True)
    columns = []
    for k in range(eta.shape[1]):
        if slope.requires_grad:
            (column,) = torch.autograd.grad(slope[:, k].sum(), eta, retain_graph=True, materialize_grads=True)
        else:
            column = torch.zeros_like(eta)
        columns.append(column)
    return nll.detach(), slope.detach(), torch.stack(columns, -1)


@torch.enable_grad()
def row_gradient(head: Head, eta: Tensor, y: Tensor) -> Tensor:
    """Gradient of each row's NLL in its complete eta, (n, K), by autograd."""
    eta = eta.detach().requires_grad_()
    (slope,) = torch.autograd.grad(head.nll_complete(eta, y).sum(), eta)
    return slope
