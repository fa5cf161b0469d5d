"""Feature columns that are linear combinations of others."""

from dataclasses import replace

import torch
from torch import Tensor

from mlefw.baseline.derivatives import triangle
from mlefw.baseline.moments import weighted_products
from mlefw.baseline.problem import Problem


def independent_columns(problem: Problem) -> tuple[Tensor, Tensor]:
    """The active features split into (kept, dropped), two index tensors in the order of the columns.

    Columns are taken in order in a Cholesky factorisation of the weighted correlation matrix; one is dropped if the
    part that the columns before it leave unexplained is below rounding. A column that is suspect at the accuracy of a
    Gram matrix (1e-8) is tested again by a QR factorisation of the rows.
    """
    if _sample_decides(problem):
        return problem.active, problem.active[:0]
    mean, gram = weighted_products(problem, exact=True)
    unit = problem.scale[problem.active]
    mean, gram = (mean - problem.mean[problem.active]) / unit, gram / unit / unit.unsqueeze(1)
    kept = _kept(problem, mean, gram)
    return problem.active[kept], problem.active[~kept]


def _kept(problem: Problem, mean: Tensor, gram: Tensor) -> Tensor:
    """Which of the active features to keep, (num_active,), from the mean and the products of the standardised ones."""
    unit = problem.scale[problem.active]
    size = gram.diagonal() / problem.population
    # Rounding error of a standardised column: eps times its mean before centring, in units of its spread.
    noise = (1e-14 * (1 + (problem.mean[problem.active] / unit).abs() + mean.abs())) ** 2
    varies = size > noise
    root = torch.where(varies, gram.diagonal().clamp(min=1e-300).rsqrt(), torch.zeros_like(size))
    return _sequential(root.unsqueeze(1) * gram * root, varies, problem, mean)


def without_collinear(problem: Problem) -> Problem:
    """The problem without features that are collinear with others; where columns of eta differ, in each of these.

    A feature that no column has any more is no longer active.
    """
    if problem.mask is None:
        return problem.restricted(independent_columns(problem)[0])
    used, dropped = problem.used.clone(), list(problem.dropped)  # type: ignore[union-attr]
    mean, gram = weighted_products(problem, exact=True)
    unit = problem.scale[problem.active]
    mean, gram = (mean - problem.mean[problem.active]) / unit, gram / unit / unit.unsqueeze(1)
    for k, mask in enumerate(problem.mask):
        own = mask[:-1].nonzero().squeeze(1)
        part = problem.restricted(problem.active[own])
        centre = mean[own] if bool(mask[-1]) else torch.zeros(len(own), dtype=torch.float64)
        products = gram[own][:, own] + problem.population * torch.outer(mean[own] - centre, mean[own] - centre)
        kept = _kept(part, centre, products)
        lost = part.active[~kept]
        used[k, lost] = False
        dropped += [(k, int(j)) for j in lost]
    left = used[:, problem.active].any(0)
    return replace(problem, used=used, dropped=tuple(dropped), active=problem.active[left])


def _sample_decides(problem: Problem) -> bool:
    """Whether a sample of rows shows that no column depends on others; columns independent on some rows are on all."""
    step = problem.rows.num_rows // (50 * (problem.num_active + 1))
    if step < 4 or not problem.num_active:
        return False
    rows = problem.rows.take(torch.arange(0, problem.rows.num_rows, step))
    gram = weighted_products(replace(problem, rows=rows, population=rows.population))[1]
    total = problem.population / rows.population * gram.diagonal()
    spread = problem.scale[problem.active].square() * problem.population
    # If a column varies much less in the sample than in all rows, the sample does not decide.
    if not bool((total > 1e-2 * spread).all()):
        return False
    root = gram.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * gram * root)
    return not bool(failed) and float(factor.diagonal().min()) > 1e-3


def _sequential(correlation: Tensor, varies: Tensor, problem: Problem, mean: Tensor) -> Tensor:
    """Which columns to keep, (p,): in order, each that the columns kept before it do not explain."""
    kept = torch.zeros(len(correlation), dtype=torch.bool)
    factor = torch.zeros_like(correlation)
    count = 0
    for j in range(len(correlation)):
        if not varies[j]:
            continue
        index = kept.nonzero().squeeze(1)
        row = correlation.new_zeros(count)
        if count:
            row = torch.linalg.solve_triangular(
                factor[:count, :count], correlation[index, j].unsqueeze(1), upper=False
            ).squeeze(1)
        left = float(correlation[j, j] - row @ row)
        if left < 1e-6 and count and _unexplained(problem, index, j, mean) < 1e-10:
            continue
        factor[count, :count] = row
        factor[count, count] = max(left, 1e-20) ** 0.5
        kept[j], count = True, count + 1
    return kept


def _unexplained(problem: Problem, index: Tensor, j: int, mean: Tensor) -> float:
    """Share of the norm of column j that least squares on the columns `index` leaves, by QR of the weighted rows."""
    columns = torch.cat([index, torch.tensor([j])])
    found = triangle(
        (problem.design(rows)[:, columns] - mean[columns]) * rows.weight.sqrt().unsqueeze(1)
        for rows in problem.blocks(problem.block)
    )
    return float(found[-1, -1].abs() / found[:, -1].norm()) if len(found) == len(columns) else 0.0
