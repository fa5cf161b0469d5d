"""Weighted products of features and target, and the least squares fit that they give."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.derivatives import gram, triangle
from mlefw.baseline.problem import Problem
from mlefw.rows.rows import Rows

_WELL = 0.03
"""Least pivot of the correlation matrix from which its rounding does not matter."""
_ILL = 1e-4
"""Least pivot of the correlation matrix at which its Cholesky factor can still be trusted."""


@dataclass(frozen=True)
class Moments:
    """Products of z and of the target in raw units, about their means, and the least squares fit.

    Shapes: mean_z, cross, weight (p,), gram (p, p) = Σ w (z − mean)(z − mean)'.
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
        """Whether the residual sum of squares is rounding, or has to be: as many coefficients as rows fit them all."""
        return self.is_interpolating or self.residual_square <= 1e-24 * self.total_square

    @property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the products of the features, and the products with the target along their eigenvectors."""
        values, vectors = torch.linalg.eigh(self.gram)
        return values.clamp(min=0), vectors.T @ self.cross

    def ridge_weight(self, alpha: float) -> Tensor:
        """Argmin ½ Σ w r² + ½ alpha |weight|²."""
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype)
        factor = torch.linalg.cholesky(self.gram + alpha * identity)
        return torch.cholesky_solve(self.cross.unsqueeze(1), factor).squeeze(1)


def raw_target(problem: Problem, y: Tensor, offset: Tensor) -> Tensor:
    """The target in units of the raw output."""
    return (y - offset - problem.head.center[0]) / problem.head.gain[0]


def moments(problem: Problem) -> Moments:
    """One pass for the products; where they have lost digits, more for the residuals of the fit that they give."""
    p = problem.num_active
    mean, products = weighted_products(problem, with_target=True)
    unit = problem.scale[problem.active]
    products_z, cross = products[:p, :p] / unit / unit.unsqueeze(1), products[:p, p] / unit
    mean_z, mean_y = (mean[:p] - problem.mean[problem.active]) / unit, float(mean[p])
    square = float(products[p, p])
    weight, residual = _least_squares(problem, products_z, cross, square, mean_z, mean_y)
    # Without a prior the active features are independent of each other.
    full = problem.prior.flat and p + 1 >= int((problem.rows.weight > 0).sum())
    return Moments(mean_z, mean_y, products_z, cross, square, residual, weight, full)


def weighted_products(problem: Problem, with_target: bool = False, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Mean (p,) of the active features as they are, and Σ w (x − mean)(x − mean)', (p, p).

    With the target they have one more entry, the target in raw units. Features far from zero, or with `exact` all of
    them, are taken about a provisional mean, block by block.
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
    copied = moved or weighted
    block = problem.block if copied else max(problem.block, 2**16)
    shape = (2, min(block, problem.rows.num_rows) if copied else 0, p)
    centred, scratch = torch.empty(shape, dtype=torch.float64)
    for rows in problem.blocks(block):
        x = problem.active_features(rows)
        x = torch.sub(x, near[:p], out=centred[: len(x)]) if moved else x
        products[:p, :p] += gram(x, rows.weight if weighted else None, scratch[: len(x)])
        one = rows.weight if weighted else torch.ones_like(rows.weight)
        products[:p, p + 1] += one @ x
        products[p + 1, p + 1] += one.sum()
        if with_target:
            y = raw_target(problem, rows.y, rows.offset) - near[p]
            products[:p, p] += (one * y) @ x
            products[p, p] += (one * y) @ y
            products[p, p + 1] += one @ y
    size = p + 1 if with_target else p
    mean = products[:size, p + 1] / total
    return near[:size] + mean, products[:size, :size] - total * torch.outer(mean, mean)


def _least_squares(
    problem: Problem, products: Tensor, cross: Tensor, total_square: float, mean_z: Tensor, mean_y: float
) -> tuple[Tensor, float]:
    """The weights and their residual sum of squares."""
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
    # Summed anew: a difference of sums may be negative where nothing is left but rounding.
    return weight, _residuals(problem, weight, mean_z, mean_y)[0]


def _residuals(problem: Problem, weight: Tensor, mean_z: Tensor, mean_y: float) -> tuple[float, Tensor]:
    """Σ w r² and Σ w r (z − mean), (num_active,), for the residuals r of a fit through the means, in raw units."""
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
    # gelsd: minimum norm, so that columns without rank (under a prior, say) still give the least residual.
    rank = {"rcond": torch.finfo(whole.dtype).eps * problem.rows.num_rows, "driver": "gelsd"}
    return torch.linalg.lstsq(whole[:, :-1], whole[:, -1:], **rank).solution.squeeze(1)
