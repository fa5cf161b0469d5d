"""Weighted products of features and target, and least squares from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.derivatives import gram, product, triangle
from mlefw.baseline.problem import Problem
from mlefw.rows.rows import Rows

_WELL = 0.03
"""Cholesky pivot of the correlation matrix above which its rounding error does not matter."""
_ILL = 1e-4
"""Cholesky pivot of the correlation matrix below which its factor is too inaccurate."""


@dataclass(frozen=True)
class Moments:
    """Centred products of the features z and the target y, in raw units, and the least squares fit.

    Attributes:
        mean_z: weighted mean of z, (p,).
        mean_y: weighted mean of y.
        gram: Σ w (z − mean)(z − mean)', (p, p).
        cross: Σ w (z − mean)(y − mean), (p,).
        total_square: Σ w (y − mean)².
        residual_square: residual sum of squares of the fit.
        weight: coefficients of the fit, (p,).
        is_interpolating: whether there are as many coefficients as rows.
    """

    mean_z: Tensor
    mean_y: float
    gram: Tensor
    cross: Tensor
    total_square: float
    residual_square: float
    weight: Tensor
    is_interpolating: bool = False

    @property
    def is_perfect(self) -> bool:
        """Whether the fit is exact: the residual sum of squares is rounding error, or the fit interpolates."""
        return self.is_interpolating or self.residual_square <= 1e-24 * self.total_square

    @property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of `gram`, (p,), and `cross` in the basis of its eigenvectors, (p,)."""
        values, vectors = torch.linalg.eigh(self.gram)
        return values.clamp(min=0), vectors.T @ self.cross

    def ridge_weight(self, alpha: float) -> Tensor:
        """The weights that minimise ½ Σ w r² + ½ alpha |weight|² for residuals r, (p,)."""
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype)
        factor = torch.linalg.cholesky(self.gram + alpha * identity)
        return torch.cholesky_solve(self.cross.unsqueeze(1), factor).squeeze(1)


def raw_target(problem: Problem, y: Tensor, offset: Tensor) -> Tensor:
    """The target less its offset, in units of the raw output, (n,)."""
    return (y - offset - problem.head.center[0]) / problem.head.gain[0]


def moments(problem: Problem) -> Moments:
    """The moments of a problem from one pass over the rows, and more passes for residuals if digits were lost."""
    p = problem.num_active
    mean, products = weighted_products(problem, with_target=True)
    unit = problem.scale[problem.active]
    products_z, cross = products[:p, :p] / unit / unit.unsqueeze(1), products[:p, p] / unit
    mean_z, mean_y = (mean[:p] - problem.mean[problem.active]) / unit, float(mean[p])
    square = float(products[p, p])
    weight, residual = _least_squares(problem, products_z, cross, square, mean_z, mean_y)
    # Without a prior the active features are linearly independent, so that p + 1 coefficients fit p + 1 rows.
    full = problem.prior.flat and p + 1 >= int((problem.rows.weight > 0).sum())
    return Moments(mean_z, mean_y, products_z, cross, square, residual, weight, full)


def weighted_products(problem: Problem, with_target: bool = False, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Mean (p,) of the unstandardised active features x, and Σ w (x − mean)(x − mean)', (p, p).

    With the target, both have one more entry, for the target in raw units. Features far from zero, or with `exact` all
    features, are centred at a provisional mean first, which saves digits.
    """
    p, total, weighted = problem.num_active, problem.population, problem.is_weighted
    sample = problem.rows.take(slice(0, None, 1 + problem.rows.num_rows // 4096))
    near = torch.zeros(p + 2, dtype=torch.float64)
    moved = exact or problem.is_far
    if moved:
        near[:p] = problem.active_features(sample).mean(0)
    if with_target:
        near[p] = raw_target(problem, sample.y, sample.offset).mean()
    products = torch.zeros(p + 2, p + 2, dtype=torch.float64)
    copied = moved or weighted or problem.is_copied
    block = problem.block if copied else max(problem.block, 2**16)
    shape = (2, min(block, problem.rows.num_rows) if copied else 0, p)
    centred, scratch = torch.empty(shape, dtype=torch.float64)
    for rows in problem.blocks(block):
        x = problem.active_features(rows)
        x = torch.sub(x, near[:p], out=centred[: len(x)]) if moved else x
        products[:p, :p] += gram(x, rows.weight if weighted else None, scratch[: len(x)])
        products[:p, p + 1] += product(x.T, rows.weight.unsqueeze(1))[:, 0]
        products[p + 1, p + 1] += rows.weight.sum()
        if with_target:
            y = raw_target(problem, rows.y, rows.offset) - near[p]
            heavy = rows.weight * y if weighted else y
            products[:p, p] += product(x.T, heavy.unsqueeze(1))[:, 0]
            products[p, p] += heavy @ y
            products[p, p + 1] += heavy.sum()
    size = p + 1 if with_target else p
    mean = products[:size, p + 1] / total
    return near[:size] + mean, products[:size, :size] - total * torch.outer(mean, mean)


def _least_squares(
    problem: Problem, products: Tensor, cross: Tensor, total_square: float, mean_z: Tensor, mean_y: float
) -> tuple[Tensor, float]:
    """The least squares weights (p,) and their residual sum of squares."""
    root = products.diagonal().clamp(min=1e-300).rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * products * root)
    least = float(factor.diagonal().min()) if problem.num_active else 1.0
    if bool(failed) or least < _ILL:
        weight = _by_qr(problem, mean_z, mean_y)
        return weight, _residuals(problem, weight, mean_z, mean_y)[0]

    def solve(right: Tensor) -> Tensor:
        return root * torch.cholesky_solve((root * right).unsqueeze(1), factor).squeeze(1)

    weight = solve(cross)
    square = total_square - float(weight @ cross)
    distance = (problem.mean / problem.scale)[problem.active].abs()
    if least > _WELL and square > 1e-3 * total_square and not bool((distance > 3.0).any()):
        return weight, square
    weight = weight + solve(_residuals(problem, weight, mean_z, mean_y)[1])
    # Summed from residuals: a difference of sums may be negative by rounding.
    return weight, _residuals(problem, weight, mean_z, mean_y)[0]


def _residuals(problem: Problem, weight: Tensor, mean_z: Tensor, mean_y: float) -> tuple[float, Tensor]:
    """Σ w r² and Σ w r (z − mean), (num_active,), for residuals r of a fit through the means, in raw units."""
    theta = weight.new_zeros(problem.size)
    slopes, bias, _ = problem.split(theta)
    slopes[0], bias[0] = weight, mean_y - float(weight @ mean_z)
    gain = problem.head.gain[0]
    square, across, total = 0.0, torch.zeros_like(weight), 0.0
    for rows, features, eta in problem.etas(theta):
        residual = (rows.y - eta[:, 0]) / gain
        weighted = rows.weight * residual if problem.is_weighted else residual
        square += float(weighted @ residual)
        across += weighted @ features
        total += float(weighted.sum())
    if not problem.is_far:
        across -= total * problem.mean[problem.active]
    return square, across / problem.scale[problem.active] - total * mean_z


def _by_qr(problem: Problem, mean_z: Tensor, mean_y: float) -> Tensor:
    def block(rows: Rows) -> Tensor:
        y = raw_target(problem, rows.y, rows.offset) - mean_y
        both = torch.cat([problem.design(rows)[:, :-1] - mean_z, y.unsqueeze(1)], 1)
        return rows.weight.sqrt().unsqueeze(1) * both

    whole = triangle(map(block, problem.blocks(problem.block)))
    # The driver gelsd gives the solution of minimum norm for rank-deficient columns, which a prior allows.
    rank = {"rcond": torch.finfo(whole.dtype).eps * problem.rows.num_rows, "driver": "gelsd"}
    return torch.linalg.lstsq(whole[:, :-1], whole[:, -1:], **rank).solution.squeeze(1)
