"""The theory of stochastic gradient descent near an optimum, and measurements on simulated chains."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from mlefw.simulation.replicates import Replicates, descend, drawn_batches


@dataclass(frozen=True)
class Curvature:
    """Derivatives of the mean NLL at a point.

    Attributes:
        hessian: H, its Hessian, (size, size).
        noise: C, the covariance of the gradients of single rows, (size, size).
        gradient: its gradient, (size,).
        num_rows: n, the number of rows.
    """

    hessian: np.ndarray
    noise: np.ndarray
    gradient: np.ndarray
    num_rows: int

    @property
    def largest_rate(self) -> float:
        """The rate above which gradient descent diverges: 2 / (largest eigenvalue of H)."""
        return 2 / float(np.linalg.eigvalsh(self.hessian)[-1])

    @property
    def noise_scale(self) -> float:
        """tr(C) / |gradient|²: the batch size above which the signal exceeds the noise (McCandlish et al., 2018)."""
        return float(np.trace(self.noise) / (self.gradient @ self.gradient))

    def sampling(self) -> np.ndarray:
        """Covariance of the maximum likelihood estimate over data sets, H⁻¹ C H⁻¹ / n (Huber, 1967)."""
        return self.averaged(self.num_rows)

    def averaged(self, num_gradients: float) -> np.ndarray:
        """Covariance of the mean of the iterates after `num_gradients` row gradients (Polyak & Juditsky, 1992)."""
        inverse = np.linalg.inv(self.hessian)
        return np.asarray(inverse @ self.noise @ inverse / num_gradients)

    def stationary(self, lr: float, batch_size: int) -> np.ndarray | None:
        """Stationary covariance S of the iterates, S = (I − lr H) S (I − lr H) + lr² C / B; None if they diverge."""
        if lr >= self.largest_rate:
            return None
        step = np.eye(len(self.hessian)) - lr * self.hessian
        return np.asarray(solve_discrete_lyapunov(step, lr**2 * self.noise / batch_size))

    def excess(self, covariance: np.ndarray) -> float:
        """Expected excess NLL ½ tr(H S), in nats per row, of points about the optimum with covariance S."""
        return 0.5 * float(np.trace(self.hessian @ covariance))

    def small_rate_excess(self, lr: float, batch_size: int) -> float:
        """Expected excess NLL of the stationary iterates in the limit of a small rate, lr · tr(C) / (4 B)."""
        return lr * float(np.trace(self.noise)) / (4 * batch_size)


def curvature(data: Replicates, theta: Tensor) -> Curvature:
    """The derivatives of the mean NLL of a single data set at theta (size,)."""
    point = theta.unsqueeze(0)
    scores = data.scores(point)[0].numpy()
    hessian = data.hessian(point, expected=False)[0].numpy()
    return Curvature(hessian, np.cov(scores.T, bias=True), scores.mean(0), len(scores))


@dataclass(frozen=True)
class Rest:
    """Stationary iterates of stochastic gradient descent about an optimum, over many chains.

    Attributes:
        cloud: iterates minus the optimum, (T, chains, size).
        excess: mean NLL above the optimum, in nats per row, and its standard error over chains.
        averages: means of the iterates of each chain minus the optimum, (chains, size).
    """

    cloud: np.ndarray
    excess: tuple[float, float]
    averages: np.ndarray

    def variance(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean square deviation of each coordinate from the optimum, and its standard error, each (size,)."""
        each = np.square(self.cloud).mean(0)
        return each.mean(0), each.std(0, ddof=1) / math.sqrt(len(each))


def rest(
    data: Replicates,
    optimum: Tensor,
    lr: float,
    batch_size: int,
    seed: int,
    num_chains: int = 100,
    num_steps: int = 300,
    settle: int = 100,
) -> Rest:
    """Stationary iterates of chains that start at the optimum of a single data set; `settle` steps are dropped."""
    many = Replicates(data.head, data.x.expand(num_chains, -1, -1), data.y.expand(num_chains, -1))
    batches = drawn_batches(num_chains, data.num_rows, batch_size, seed)
    path = descend(many, optimum.expand(num_chains, -1), lr, settle + num_steps, batches)[settle + 1 :]
    thinned = path[:: max(num_steps // 30, 1)]
    least = float(data.nll(optimum.unsqueeze(0)))
    excess = torch.stack([many.nll(theta) for theta in thinned]).mean(0) - least
    error = float(excess.std()) / math.sqrt(num_chains)
    return Rest((path - optimum).numpy(), (float(excess.mean()), error), (path.mean(0) - optimum).numpy())


def estimated_noise_scale(
    data: Replicates, theta: Tensor, sizes: tuple[int, int], seed: int, num_draws: int = 400
) -> float | None:
    """The gradient noise scale, estimated from gradients of small and large batches (McCandlish et al., 2018).

    Numerator and denominator are averaged separately; None where the estimate of |gradient|² is not positive.
    """
    many = Replicates(data.head, data.x.expand(num_draws, -1, -1), data.y.expand(num_draws, -1))
    point = theta.expand(num_draws, -1)
    squares = []
    for number, size in enumerate(sizes):
        index = drawn_batches(num_draws, data.num_rows, size, seed + number)(0)
        squares.append(float(many.take(index).gradient(point).square().sum(1).mean()))
    (small, large), (few, most) = squares, sizes
    signal = (most * large - few * small) / (most - few)
    return (small - large) / (1 / few - 1 / most) / signal if signal > 0 else None
