"""Leave-one-out of least squares without a refit: each row's own residual and leverage tell what the others predict."""

import math

import numpy as np
from scipy.linalg import qr

from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Settings
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.none import NoPrior
from mlefw.run import build
from mlefw.run.build import Data

_ALONE = 1e-8
"""What the leverage of a row may lack to one: such a row alone determines some coefficient."""


def supports(config: Settings, data: Data) -> bool:
    """Whether the exact formula is that of the estimate: a Gaussian head with a learnt scale, without a prior."""
    head = build.head_of(config.head, data.schema.targets)
    plain = type(head) is GaussianHead and head.eta_names == ("loc",) and "scale" not in head.fixed
    return plain and type(instantiate("prior", config.prior)) is NoPrior


def leave_one_out(config: Settings, data: Data) -> tuple[np.ndarray, np.ndarray, float]:
    """The NLL of each row under the fit to all others, (n,), under their intercept alone, (n,), and PRESS.

    A row that the others say nothing of, as it alone determines a coefficient, is not a number.
    """
    rows = data.train
    asked = data.schema.columns_of(config.baseline.get("features"), "baseline.features")
    x, weight = rows.x.numpy()[:, asked], rows.weight.numpy()
    y = (rows.y - rows.offset).numpy()
    nll, residual = _left_out(x, y, weight)
    null, _ = _left_out(x[:, :0], y, weight)
    return nll, null, float(np.nansum(weight * residual**2))


def _left_out(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NLL and residual of each row, (n,), under least squares on all others, whose scale is √(RSS / Σ w).

    With h = w·xᵀ(XᵀWX)⁻¹x: residual e / (1 - h), and RSS - w·e² / (1 - h) of the others.
    """
    root = np.sqrt(weight)
    mean = weight @ x / weight.sum()
    spread = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    design = np.column_stack([np.ones(len(y)), (x - mean) / np.where(spread > 0, spread, 1.0)])
    q, r, _ = qr(root[:, None] * design, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    q = q[:, size > size.max() * max(design.shape) * np.finfo(np.float64).eps]
    away = y - weight @ y / weight.sum()
    scaled = root * away
    scaled = scaled - q @ (q.T @ scaled)
    leverage = (q**2).sum(1)
    rest = np.where(1 - leverage > _ALONE, 1 - leverage, np.nan)
    # Of a row without weight the root is zero, and its residual is that of the fit itself.
    fitted = q @ (q.T @ (root * away))
    error = np.where(weight > 0, away - np.divide(fitted, root, where=root > 0, out=np.zeros_like(root)), np.nan)
    square = ((scaled**2).sum() - weight * error**2 / rest) / (weight.sum() - weight)
    residual = error / rest
    with np.errstate(invalid="ignore", divide="ignore"):
        nll = 0.5 * np.log(2 * math.pi * square) + residual**2 / (2 * square)
    return nll, residual
