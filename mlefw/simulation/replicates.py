"""Many data sets of equal size: exact fits and descents of all of them in batched tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives, row_slopes
from mlefw.head.base import Head


@dataclass(frozen=True)
class Replicates:
    """R linear problems without a prior: x (R, n, num_features), y (R, n), float64, under one head.

    theta (R, size) is laid out as in `Problem`: weights and a bias for each eta column, then the shared raw values.
    """

    head: Head
    x: Tensor
    y: Tensor

    @property
    def num_rows(self) -> int:
        """Number of rows of each problem."""
        return self.x.shape[1]

    @property
    def size(self) -> int:
        """Length of the theta of one problem."""
        return self.head.eta_dim * (self.x.shape[2] + 1) + self.head.shared_dim

    def origin(self) -> Tensor:
        """Zeros, a theta for each problem, (R, size)."""
        return torch.zeros(len(self.x), self.size, dtype=torch.float64)

    def take(self, index: Tensor) -> "Replicates":
        """The rows `index` (R, B) of each problem."""
        rows = torch.arange(len(self.x)).unsqueeze(1)
        return Replicates(self.head, self.x[rows, index], self.y[rows, index])

    def eta(self, theta: Tensor) -> Tensor:
        """Complete eta, (R, n, eta_dim + shared_dim)."""
        head = self.head
        table = theta[:, : self.size - head.shared_dim].reshape(len(theta), head.eta_dim, -1)
        raw = self.x @ table[..., :-1].mT + table[..., -1].unsqueeze(1)
        shared = theta[:, self.size - head.shared_dim :].unsqueeze(1).expand(-1, self.num_rows, -1)
        return head.center + head.gain * torch.cat([raw, shared], -1)

    @torch.no_grad()
    def nll(self, theta: Tensor) -> Tensor:
        """Mean NLL of each problem, (R,)."""
        return self.head.nll_complete(self.eta(theta), self.y).mean(1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of the mean NLL in theta, (R, size)."""
        eta = self.eta(theta)
        slope = row_slopes(self.head, eta.flatten(0, 1), self.y.flatten())[1].view_as(eta) * self.head.gain
        return self._in_theta(slope) / self.num_rows

    def scores(self, theta: Tensor) -> Tensor:
        """Gradient of the NLL of each row, (R, n, size)."""
        eta = self.eta(theta)
        slope = row_slopes(self.head, eta.flatten(0, 1), self.y.flatten())[1].view_as(eta) * self.head.gain
        return torch.einsum("rnk,rnka->rna", slope, self._jacobian())

    def hessian(self, theta: Tensor, expected: bool = True) -> Tensor:
        """Expected (where the head states it) or observed Hessian of the mean NLL, (R, size, size)."""
        eta = self.eta(theta)
        curvature = self.head.information(eta) if expected else None
        if curvature is None:
            curvature = row_derivatives(self.head, eta.flatten(0, 1), self.y.flatten())[2]
            curvature = curvature.view(*eta.shape, eta.shape[-1])
        jacobian = self._jacobian()
        weighted = (curvature * self.head.gain * self.head.gain.unsqueeze(1)) @ jacobian
        return jacobian.flatten(1, 2).mT @ weighted.flatten(1, 2) / self.num_rows

    def _in_theta(self, slope: Tensor) -> Tensor:
        """Σ over rows of Jacobian' · slope, (R, size), for slope (R, n, eta_dim + shared_dim) in eta / gain."""
        head = self.head
        predicted, shared = slope[..., : head.eta_dim], slope[..., head.eta_dim :]
        table = torch.cat([predicted.mT @ self.x, predicted.sum(1).unsqueeze(-1)], -1)
        return torch.cat([table.flatten(1), shared.sum(1)], 1)

    def _jacobian(self) -> Tensor:
        """Jacobian of eta / gain in theta, (R, n, eta_dim + shared_dim, size)."""
        head, width = self.head, self.x.shape[2] + 1
        whole = self.x.new_zeros(*self.x.shape[:2], head.eta_dim + head.shared_dim, self.size)
        for k in range(head.eta_dim):
            whole[..., k, k * width : (k + 1) * width - 1] = self.x
            whole[..., k, (k + 1) * width - 1] = 1.0
        for s in range(head.shared_dim):
            whole[..., head.eta_dim + s, head.eta_dim * width + s] = 1.0
        return whole


@dataclass(frozen=True)
class Fits:
    """Estimates theta (R, size), and whether each is stationary, (R,); if not, there is no finite maximum."""

    theta: Tensor
    converged: Tensor


def fit(data: Replicates, max_steps: int = 60, tolerance: float = 1e-9) -> Fits:
    """Maximum likelihood estimates of all problems by Fisher scoring, halving the step of each where it overshoots."""
    theta = data.origin()
    value, gradient = data.nll(theta), data.gradient(theta)
    for _ in range(max_steps):
        moving = gradient.abs().amax(1) > tolerance
        if not bool(moving.any()):
            break
        hessian = data.hessian(theta)
        ridge = 1e-12 * hessian.diagonal(dim1=1, dim2=2).amax(1)[:, None, None] * torch.eye(data.size)
        change = torch.linalg.solve(hessian + ridge, gradient)
        length = moving.double()
        for _ in range(30):
            target = theta - length.unsqueeze(1) * change
            reached = data.nll(target)
            worse = ~(reached <= value + 1e-13 * value.abs().clamp(min=1.0))
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        theta = torch.where(worse.unsqueeze(1), theta, target)
        value, gradient = data.nll(theta), data.gradient(theta)
    return Fits(theta, gradient.abs().amax(1) <= 1e-7)


def descend(
    data: Replicates, theta: Tensor, lr: float, num_steps: int, batches: Callable[[int], Tensor] | None = None
) -> Tensor:
    """The paths of (stochastic) gradient descent from theta, (num_steps + 1, R, size).

    Args:
        data: the problems.
        theta: starting points, (R, size).
        lr: learning rate.
        num_steps: number of steps.
        batches: maps a step to the indices (R, B) of its rows; by default each step uses all rows.
    """
    path = [theta]
    for step in range(num_steps):
        part = data if batches is None else data.take(batches(step))
        path.append(path[-1] - lr * part.gradient(path[-1]))
    return torch.stack(path)


def drawn_batches(num_problems: int, num_rows: int, size: int, seed: int) -> Callable[[int], Tensor]:
    """Maps a step to row indices drawn uniformly with replacement, (num_problems, size)."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _: torch.randint(num_rows, (num_problems, size), generator=generator)
