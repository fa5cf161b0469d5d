"""Exact leave-one-out of least squares without refits, from the residual and the leverage of each row."""

import math

import numpy as np
from scipy.linalg import qr

from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Settings
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.none import NoPrior
from mlefw.run import build
from mlefw.run.build import Data
from mlefw.run.estimand import baseline_features

_LEAST_REST = 1e-8
"""Least value of 1 - leverage; below it a row alone determines a coefficient, and the other rows cannot predict it."""


def supports(config: Settings, data: Data) -> bool:
    """Whether the formula applies: rows of a table, a Gaussian head with one learnt scale, and no prior."""
    if not data.schema.row_shape.is_table:
        return False
    head = build.head_of(config.head, data.schema.targets)
    plain = type(head) is GaussianHead and head.is_linear and head.eta_names == ("loc",) and "scale" not in head.fixed
    return plain and type(instantiate("prior", config.prior)) is NoPrior


def leave_one_out(config: Settings, data: Data) -> tuple[np.ndarray, np.ndarray, float]:
    """Leave-one-out scores of all training rows.

    Returns:
        The NLL of each row under the fit to all others, (n,) in nats; the NLL under the intercept-only fit to all
        others, (n,); and PRESS, the weighted sum of squared leave-one-out residuals. Rows that alone determine a
        coefficient, and rows of weight 0, have a NaN NLL and are left out of PRESS.
    """
    rows = data.train
    asked, _ = baseline_features(config, data.schema)
    x, weight = rows.x.numpy()[:, asked], rows.weight.numpy()
    y = (rows.y - rows.offset).numpy()
    nll, residual = _left_out(x, y, weight)
    null, _ = _left_out(x[:, :0], y, weight)
    return nll, null, float(np.nansum(weight * residual**2))


def _left_out(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NLL and residual of each row, both (n,), under weighted least squares on all others with scale √(RSS / Σ w).

    With leverage h = w·xᵀ(XᵀWX)⁻¹x and residual e of the fit to all rows, the leave-one-out residual is e / (1 - h),
    and the residual sum of squares of the others is RSS - w·e² / (1 - h).

    Args:
        x: features, (n, p); an intercept is added.
        y: targets less offsets, (n,).
        weight: frequencies, (n,).
    """
    root = np.sqrt(weight)
    mean = weight @ x / weight.sum()
    spread = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    design = np.column_stack([np.ones(len(y)), (x - mean) / np.where(spread > 0, spread, 1.0)])
    q, r, _ = qr(root[:, None] * design, mode="economic", pivoting=True)
    # Columns of negligible size in the pivoted QR are linear combinations of others.
    size = np.abs(np.diag(r))
    q = q[:, size > size.max() * max(design.shape) * np.finfo(np.float64).eps]
    away = y - weight @ y / weight.sum()
    scaled = root * away
    scaled = scaled - q @ (q.T @ scaled)
    leverage = (q**2).sum(1)
    rest = np.where(1 - leverage > _LEAST_REST, 1 - leverage, np.nan)
    # A row of weight 0 has root 0, so that its own fitted value cannot be recovered: it becomes NaN.
    fitted = q @ (q.T @ (root * away))
    error = np.where(weight > 0, away - np.divide(fitted, root, where=root > 0, out=np.zeros_like(root)), np.nan)
    square = ((scaled**2).sum() - weight * error**2 / rest) / (weight.sum() - weight)
    residual = error / rest
    with np.errstate(invalid="ignore", divide="ignore"):
        nll = 0.5 * np.log(2 * math.pi * square) + residual**2 / (2 * square)
    return nll, residual
