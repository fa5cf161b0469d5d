"""Leverage of rows, and the scores that it corrects for: HC2, HC3 and HC4."""

from collections.abc import Callable

import torch
from torch import Tensor

from mlefw.baseline.information import Information, invert
from mlefw.baseline.problem import Problem
from mlefw.baseline.score_products import Adjust
from mlefw.rows.rows import Rows

_WHOLE = 1e-8
"""Distance of a leverage from one below which it is one but for rounding."""
_NEGLIGIBLE = 1e-12
"""Eigenvalue of a correlation matrix below which it is rounding error."""


class LeverageError(ArithmeticError):
    """A row has a leverage of one: it alone determines a coefficient, and without it there is no estimate.

    Attributes:
        row: the position of the row.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} has a leverage of one")
        self.row = row


def adjustment(kind: str, problem: Problem, information: Information, num_coefficients: int) -> Adjust | None:
    """What corrects the scores of rows for their leverage; None if the information cannot be inverted.

    With one predicted eta column, row curvature h and design z, the leverage is g = h z' A⁻¹ z, A being the information
    of the coefficients given the shared parameters, and Σ w g is their number. The score is multiplied by
    (1 − g)^(−½) for `hc2` (MacKinnon & White, 1985), (1 − g)^(−1) for `hc3`, or (1 − g)^(−½ min(4, g / mean)) for
    `hc4` (Cribari-Neto, 2004). Weights are frequencies: g is that of one copy of a row.

    With several columns leverage is the matrix G = h Z A⁻¹ Z', whose function multiplies the scores of the columns. So
    A⁻¹ Z' (I − G)⁻¹ s is one step of Newton's method from the estimate to that without the row, exact in the
    information: (A − Z' h Z)⁻¹ Z' s. It is G and not its transpose that does this. Scores of shared parameters, such as
    a dispersion, stay as they are, as in R's `sandwich`.

    Args:
        kind: `hc2`, `hc3` or `hc4`.
        problem: the problem.
        information: the information at the estimate.
        num_coefficients: number of free coefficients, without shared parameters.
    """
    head, width = problem.head, problem.num_active + 1
    predicted = head.eta_dim * width
    free = problem.free[:predicted].nonzero().squeeze(1)
    small, _ = invert(information.matrix[free.unsqueeze(1), free])
    if small is None:
        return None
    inverse = torch.zeros(predicted, predicted, dtype=torch.float64)
    inverse[free.unsqueeze(1), free] = small
    blocks = inverse.view(head.eta_dim, width, head.eta_dim, width)
    mean = num_coefficients / problem.population
    gain = head.gain[: head.eta_dim]
    seen = 0

    def adjust(rows: Rows, design: Tensor, eta: Tensor, slope: Tensor) -> Tensor:
        nonlocal seen
        spread = slope.new_empty(len(design), head.eta_dim, head.eta_dim)
        for k in range(head.eta_dim):
            for j in range(k + 1):
                spread[:, k, j] = spread[:, j, k] = ((design @ blocks[k, :, j]) * design).sum(1)
        curvature = information.of_rows(rows, eta)[:, : head.eta_dim, : head.eta_dim] * gain * gain.unsqueeze(1)

        def factor(leverage: Tensor) -> Tensor:
            too_high = (leverage >= 1 - _WHOLE).any(1) & (rows.weight > 0)
            if bool(too_high.any()):
                raise LeverageError(seen + int(too_high.nonzero()[0]))
            left = (1 - leverage).clamp(min=_WHOLE)
            if kind == "hc4":
                return left ** (-0.5 * (leverage.sum(1, keepdim=True) / mean).clamp(min=0.0, max=4.0))
            return left ** (-0.5 if kind == "hc2" else -1.0)

        found = apply(factor, curvature, spread, slope[:, : head.eta_dim])
        seen += len(design)
        return torch.cat([found, slope[:, head.eta_dim :]], 1)

    return adjust


def apply(factor: Callable[[Tensor], Tensor], curvature: Tensor, spread: Tensor, score: Tensor) -> Tensor:
    """f(curvature · spread) score for a function f of the eigenvalues of that product, (n, K).

    The eigenvalues are real, as they are those of spread^½ curvature spread^½. Where the spread has no rank, a row has
    no entry in the design, and its score there has no effect: it becomes zero.

    Args:
        factor: maps the eigenvalues (n, K) to multipliers (n, K).
        curvature: symmetric, (n, K, K).
        spread: symmetric and positive semi-definite, (n, K, K).
        score: (n, K).
    """
    if score.shape[1] == 1:
        return factor((curvature * spread)[:, 0]) * score
    unit = spread.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    back = torch.where(unit > 0, 1 / unit, 0.0)
    values, vectors = torch.linalg.eigh(back.unsqueeze(2) * spread * back.unsqueeze(1))
    has_rank = values > _NEGLIGIBLE
    root = torch.where(has_rank, values.clamp(min=0).sqrt(), 0.0)
    # spread^½ with any rotation serves: spread = half half'.
    half = unit.unsqueeze(2) * vectors * root.unsqueeze(1)
    inverse = back.unsqueeze(2) * vectors * torch.where(has_rank, 1 / root, 0.0).unsqueeze(1)
    leverage, rotation = torch.linalg.eigh(half.mT @ curvature @ half)
    inner = rotation.mT @ (half.mT @ score.unsqueeze(2))
    return (inverse @ (rotation @ (factor(leverage).unsqueeze(2) * inner))).squeeze(2)
