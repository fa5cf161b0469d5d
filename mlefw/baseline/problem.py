"""The linear estimation problem: a head, a prior and the training rows, as an objective of a vector theta."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mlefw.baseline.backward import Backward, Penalty, penalty
from mlefw.baseline.derivatives import (
    Derivatives,
    add_gradient,
    add_hessian,
    product,
    row_derivatives,
    row_products,
    row_slopes,
)
from mlefw.baseline.feature_map import FeatureMap
from mlefw.baseline.layout import Layout
from mlefw.head.base import Head
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows, add_offset

_FAR = 100.0
"""Mean of a feature, in units of its spread, above which it is centred before products rather than afterwards."""


@dataclass(frozen=True)
class Problem(Layout):
    """The objective of a linear model, in the parameters that training descends; see `Layout` for theta.

    Everything is in float64 on the CPU; x is read block by block and never copied whole.
    """

    @classmethod
    def of(
        cls,
        head: Head,
        rows: Rows,
        mean: Tensor,
        scale: Tensor,
        prior: Prior,
        features: FeatureMap | None = None,
        used: Tensor | None = None,
    ) -> "Problem":
        """The problem over all features, with a copy of the head whose shared values are zero.

        The floor of the scales is removed, unless the head has no maximum without it.
        """
        free = deepcopy(head).double().cpu()
        if not head.floored:
            free.floor.zero_()
        torch.nn.init.zeros_(free.shared)
        rows = rows if rows.x.device.type == "cpu" else rows.to("cpu")
        active = torch.arange(rows.x.shape[1])
        mean, scale = mean.double().cpu(), scale.double().cpu()
        return cls(free, rows, mean, scale, prior, active, rows.population, features=features, used=used)

    def restricted(self, active: Tensor) -> "Problem":
        """The problem with the features `active` (indices) only; without any it is the null model."""
        return replace(self, active=active)

    @property
    def block(self) -> int:
        """Number of rows to work on at a time: two megabytes of features, to stay in the processor's cache."""
        return self.block_rows or min(max(2**18 // (self.num_active + 1), 1024), 16384)

    def blocks(self, size: int) -> Iterator[Rows]:
        """The rows in blocks of `size`, until the time limit, at which LeftOutError is raised."""
        for rows in self.rows.blocks(size):
            if self.meter is not None:
                self.meter.check()
            yield rows

    @cached_property
    def is_far(self) -> bool:
        """Whether some feature is so far from zero, relative to its spread, that products with it would lose digits."""
        return bool(((self.mean / self.scale)[self.active].abs() > _FAR).any())

    @property
    def is_copied(self) -> bool:
        """Whether the features of a block are copied, to be centred or converted to 64 bit."""
        return self.is_far or self.rows.x.dtype != torch.float64

    def etas(self, theta: Tensor) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Blocks of rows, their active features (n, num_active) and complete eta (n, eta_dim + shared_dim).

        Features are unstandardised, or centred if `is_far`. Their memory is reused for the next block.
        """
        for rows, features, eta in self.columns(theta, self.head.center):
            if self.has_offset:
                add_offset(eta, rows.offset)
            yield rows, features, eta

    def movements(self, direction: Tensor) -> Iterator[Tensor]:
        """The change of the complete eta along a direction of theta, (n, eta_dim + shared_dim), block by block."""
        for _, _, movement in self.columns(direction, torch.zeros_like(self.head.center)):
            yield movement

    def columns(self, theta: Tensor, origin: Tensor) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Blocks like those of `etas`, with `origin` in place of the head's center, and without the data's offset."""
        weight, bias, shared = self.split(theta)
        gain, eta_dim, mean = self.head.gain, self.head.eta_dim, self.mean[self.active]
        slope = gain[:eta_dim].unsqueeze(1) * weight / self.scale[self.active]
        start = origin[:eta_dim] + gain[:eta_dim] * bias - (0.0 if self.is_far else slope @ mean)
        tail = origin[eta_dim:] + gain[eta_dim:] * shared
        # Features that are not copied need not stay in the cache, and longer blocks take fewer calls.
        block = self.block if self.is_copied else self.block_rows or max(2**16 // eta_dim, self.block)
        buffer = torch.empty(min(block, self.rows.num_rows) if self.is_far else 0, self.num_active, dtype=torch.float64)
        for rows in self.blocks(block):
            x = self.active_features(rows)
            features = torch.sub(x, mean, out=buffer[: len(x)]) if self.is_far else x
            eta = product(features, slope.T.contiguous()).add_(start)
            yield rows, features, torch.cat([eta, tail.expand(len(x), -1)], 1) if len(tail) else eta

    @cached_property
    def has_offset(self) -> bool:
        """Whether any row has an offset."""
        return bool(self.rows.offset.any())

    @cached_property
    def is_weighted(self) -> bool:
        """Whether any row has a weight other than 1."""
        return bool((self.rows.weight != 1).any())

    def design(self, rows: Rows) -> Tensor:
        """Standardised active features and a column of ones, (n, num_active + 1)."""
        z = torch.empty(rows.num_rows, self.num_active + 1, dtype=torch.float64)
        torch.sub(self.active_features(rows), self.mean[self.active], out=z[:, :-1])
        z[:, :-1] /= self.scale[self.active]
        z[:, -1] = 1.0
        return z

    def designs(self, theta: Tensor) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Blocks of rows, their design (n, num_active + 1) and complete eta; the design's memory is reused."""
        buffer = torch.ones(min(self.block, self.rows.num_rows), self.num_active + 1, dtype=torch.float64)
        mean, unit = self.mean[self.active], 1 / self.scale[self.active]
        table, shared = theta[: self.size - self.head.shared_dim].view(self.head.eta_dim, -1), self.split(theta)[2]
        for rows in self.blocks(self.block):
            design = buffer[: rows.num_rows]
            torch.sub(self.active_features(rows), mean, out=design[:, :-1])
            design[:, :-1] *= unit
            movement = torch.cat([design @ table.T, shared.expand(len(design), -1)], 1)
            eta = self.head.center + self.head.gain * movement
            add_offset(eta, rows.offset)
            yield rows, design, eta

    def active_features(self, rows: Rows) -> Tensor:
        """The active columns of x, unstandardised, (n, num_active), in 64 bit."""
        return (rows.x if self.num_active == rows.x.shape[1] else rows.x[:, self.active]).double()

    def value(self, theta: Tensor) -> float:
        """The objective at theta, in nats per observation."""
        return self.mean_nll(theta) + self.penalty(theta).value

    @torch.no_grad()
    def mean_nll(self, theta: Tensor) -> float:
        """Σ w·nll / population at theta, in nats per observation."""
        total = 0.0
        for rows, _, eta in self.etas(theta):
            total += float((rows.weight * self.head.nll_complete(eta, rows.y)).sum())
        return total / self.population

    def slope(self, theta: Tensor) -> tuple[float, Tensor]:
        """The objective at theta and the gradient of its smooth part, (size,), in nats per observation."""
        total, sums = 0.0, self.backward()
        for rows, features, eta in self.etas(theta):
            nll, slope = row_slopes(self.head, eta, rows.y)
            if self.is_weighted:
                nll, slope = rows.weight * nll, rows.weight.unsqueeze(1) * slope
            total += float(nll.sum())
            sums.add(features, slope)
        penalty = self.penalty(theta)
        return total / self.population + penalty.value, sums.theta() / self.population + penalty.gradient

    def curvature_times(self, theta: Tensor, direction: Tensor, etas: Sequence[Tensor] = ()) -> Tensor:
        """The Hessian at theta times a direction, (size,), matrix-free; `etas` may hold the blocks of eta at theta."""
        sums, known = self.backward(), iter(etas or (eta for _, _, eta in self.etas(theta)))
        for rows, features, movement in self.columns(direction, torch.zeros_like(self.head.center)):
            product = row_products(self.head, next(known), rows.y, movement)
            sums.add(features, rows.weight.unsqueeze(1) * product if self.is_weighted else product)
        found = sums.theta() / self.population + self.penalty(theta).curvature * direction
        return found if self.precision is None else found + self.precision @ direction / self.population

    def backward(self) -> Backward:
        """A sum of gradients in theta, to which blocks of rows can be added."""
        mean = self.mean[self.active] * (0.0 if self.is_far else 1.0)
        return Backward(self.head.gain, self.head.eta_dim, mean, self.scale[self.active])

    def derivatives(self, theta: Tensor, expected: bool = False) -> Derivatives:
        """Objective, gradient and observed Hessian at theta, or with `expected` the head's expected information.

        Raises:
            NotImplementedError: `expected` is True and the head states no information.
        """
        total, gradient = 0.0, torch.zeros(self.size, dtype=torch.float64)
        hessian = torch.zeros(self.size, self.size, dtype=torch.float64)
        gain, eta_dim = self.head.gain, self.head.eta_dim
        scratch = torch.empty(min(self.block, self.rows.num_rows), self.num_active + 1, dtype=torch.float64)
        for rows, design, eta in self.designs(theta):
            if expected:
                information = self.head.information_given(eta, rows.y)
                if information is None:
                    raise NotImplementedError(f"{type(self.head).__name__} states no expected information")
                (nll, slope), curvature = row_slopes(self.head, eta, rows.y), information
            else:
                nll, slope, curvature = row_derivatives(self.head, eta, rows.y)
            total += float(rows.weight @ nll)
            add_gradient(gradient, design, rows.weight.unsqueeze(1) * slope * gain, eta_dim)
            weighted = rows.weight.view(-1, 1, 1) * curvature * (gain * gain.unsqueeze(1))
            add_hessian(hessian, design, weighted, eta_dim, scratch[: len(design)])
        penalty = self.penalty(theta)
        hessian /= self.population
        hessian.diagonal().add_(penalty.curvature)
        if self.precision is not None:
            hessian += self.precision / self.population
        gradient = gradient / self.population + penalty.gradient
        return Derivatives(total / self.population + penalty.value, gradient, hessian)

    def penalty(self, theta: Tensor) -> Penalty:
        """The penalty at theta, in nats per observation."""
        mask = self.mask

        def weights(leaf: Tensor) -> Tensor:
            table = self.split(leaf)[0]
            return table if mask is None else table[mask[:, :-1]]

        found = penalty(self.prior, theta, weights, self.population)
        if self.precision is None:
            return found
        slope = self.precision @ theta / self.population
        return Penalty(found.value + 0.5 * float(theta @ slope), found.gradient + slope, found.curvature)
