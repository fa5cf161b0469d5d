"""The restricted or marginal likelihood of a Gaussian with normal priors: an integral in closed form."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Criterion, NaturalUnits, split_scales, whole_root
from mlefw.baseline.work import LeftOutError


def log_units(problem: Problem) -> Tensor:
    """Log |d β / d θ| of each free entry of theta, β being coefficients in their own units, (num_free,)."""
    gain, eta_dim = problem.head.gain, problem.head.eta_dim
    units = torch.ones(eta_dim, problem.num_active + 1, dtype=torch.float64)
    units[:, :-1] = 1 / problem.scale[problem.active]
    units *= gain[:eta_dim].unsqueeze(1)
    return torch.cat([units.reshape(-1), gain[eta_dim:]]).log()[problem.free]


class GaussianIntegral:
    """The criterion of a Gaussian in scales relative to its standard deviation, which is profiled out.

    Columns are standardised ones; their coefficients are `unit` times smaller than those in their own units.
    """

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.is_restricted = problem, criterion == "reml"
        width = problem.num_active + 1
        self.at = problem.free[:width]
        self.unit = log_units(problem)[: int(self.at.sum())].exp() / problem.head.gain[0]
        self._sum_products(width)
        order = self.at.cumsum(0) - 1
        self.places = [order[place] for place in problem.places()]
        self.penalised = torch.zeros(len(self.cross), dtype=torch.bool)
        for place in self.places:
            self.penalised[place] = True
        num_free = int((~self.penalised).sum())
        self.left = problem.population - (num_free if self.is_restricted else 0)
        if self.left <= 0:
            raise LeftOutError(
                f"{problem.population:g} rows do not determine {num_free} coefficients and a standard deviation"
            )

    @property
    def natural(self) -> NaturalUnits:
        """Units of the scales by what the rows tell of a coefficient, relative to the variance of a row."""
        information = self.products.diagonal() / self.unit.square()
        return NaturalUnits.of(self.problem.blocks_of_terms, [information[place] for place in self.places])

    def _sum_products(self, width: int) -> None:
        """Products of columns and target over the rows, whose weights are divided by those of their variances."""
        products, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        self.square = self.constant = 0.0
        for rows, design, eta in self.problem.designs(torch.zeros(self.problem.size, dtype=torch.float64)):
            # An offset of the scale is the logarithm of what its standard deviation is multiplied by in a row.
            shift = rows.offset[:, 1] if rows.offset.ndim > 1 else torch.zeros_like(rows.weight)
            y, weight = rows.y - eta[:, 0], rows.weight * torch.exp(-2 * shift)
            weighted = design * weight.unsqueeze(1)
            products += weighted.T @ design
            cross += y @ weighted
            self.square += float((weight * y) @ y)
            self.constant += float(rows.weight @ shift)
        self.products, self.cross = products[self.at][:, self.at], cross[self.at]

    def fit(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The criterion, the coefficients of the columns, and the variance of a row.

        Coefficients with a prior are taken as a root of their covariance times independent standard normal numbers, and
        all others in their own units: so nothing grows without bound where a variance is zero or a correlation one.
        """
        root = whole_root(self.problem.blocks_of_terms, rho, self.places, len(self.cross)) / self.unit.unsqueeze(1)
        whole = root.T @ self.products @ root + self.penalised.double().diag()
        cross = root.T @ self.cross
        found = torch.cholesky_solve(cross.unsqueeze(1), torch.linalg.cholesky(whole)).squeeze(1)
        variance = (self.square - cross @ found) / self.left
        inside = torch.ones_like(self.penalised) if self.is_restricted else self.penalised
        twice = self.left * ((2 * math.pi * variance).log() + 1) + torch.logdet(whole[inside][:, inside])
        return 0.5 * twice + self.constant, root @ found, variance

    def value(self, rho: np.ndarray) -> tuple[float, np.ndarray]:
        """The criterion and its gradient; infinity where the coefficients are not determined."""
        leaf = torch.tensor(rho, dtype=torch.float64, requires_grad=True)
        try:
            with torch.enable_grad():
                found = self.fit(leaf)[0]
                (slope,) = torch.autograd.grad(found, leaf)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return math.inf, np.zeros_like(rho)
        return float(found.detach()), slope.numpy()

    @torch.no_grad()
    def estimate(self, rho: np.ndarray) -> tuple[Problem, Tensor]:
        """The problem with the priors of these scales, and theta."""
        problem, head = self.problem, self.problem.head
        _, beta, variance = self.fit(torch.tensor(rho))
        theta = torch.zeros(problem.size, dtype=torch.float64)
        theta[: len(self.at)][self.at] = beta / head.gain[0]
        column = head.eta_dim + head.shared_dim - 1
        theta[-1] = (0.5 * variance.log() - head.center[column]) / head.gain[column]
        return replace(problem, rho=_absolute(problem, torch.tensor(rho), float(variance))), theta


def _absolute(problem: Problem, rho: Tensor, variance: float) -> Tensor:
    """Scales of coefficients from scales relative to the standard deviation of the rows."""
    found = []
    for block, part in zip(problem.blocks_of_terms, split_scales(problem.blocks_of_terms, rho), strict=True):
        size = block.num_effects
        found += [part[:size] - math.log(variance), part[size:] * math.sqrt(variance)]
    return torch.cat(found)
