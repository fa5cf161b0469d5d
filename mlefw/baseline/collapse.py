"""Perfect fits, for which the likelihood is unbounded as a dispersion goes to zero."""

from typing import NamedTuple

import numpy as np
import torch

from mlefw.baseline import nonexistence
from mlefw.baseline.interior_point import Array, Deviations, interior_point
from mlefw.baseline.problem import Problem
from mlefw.baseline.recession import null_space, search
from mlefw.head.base import FactorizedHead
from mlefw.head.component import ComponentHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.head.student_t import StudentTHead

_ROUNDING = 1e-13
"""Size of a residual, as a share of its terms, below which it is rounding error."""
_EPS = 4 * float(np.finfo(float).eps)
_MOST = 5000
"""Most rows in which a plane through a majority of rows is searched."""
_FLAT = 1e-11
"""Relative size below which a combination of residuals is rounding error."""


class Collapse(NamedTuple):
    """Why the likelihood has no maximum.

    Attributes:
        reason: one sentence for reports.
        infimum: the infimum of the mean NLL, if it is finite and known.
        line: coefficients (num_active + 1,) of the first eta, if they fit all rows exactly.
    """

    reason: str
    infimum: float | None = None
    line: torch.Tensor | None = None


def collapse(problem: Problem, seconds: float) -> Collapse | None:
    """The collapse of the likelihood onto rows that are fitted exactly; None if none was found.

    Coefficients stay finite as the dispersion goes to zero, so that a prior on them does not prevent it.
    """
    head = problem.head
    if isinstance(head, MultivariateGaussianHead):
        return _of_combination(problem)
    at = _targets(problem)
    if at is None:
        return None
    if bool((at.exact & ~np.isfinite(at.low)).any()):
        return _of_zeros(at, seconds)
    z, low, noise, exact = at.z, at.low, at.noise, at.exact
    line = fitted(z[exact], low[exact], noise[exact])
    if line is not None and exact.all():
        line[-1] += at.middle - float(head.center[0] / head.gain[0])
        reason = nonexistence.perfect_fit(bool((problem.rows.y == problem.rows.y[0]).all()))
        whole = torch.zeros(problem.num_active + 1, dtype=torch.float64)
        whole[problem.design_columns(0)] = torch.from_numpy(line)
        return Collapse(reason, line=whole)
    if line is not None:
        return _within_bounds(z, low, at.high, line, seconds)
    if isinstance(head, StudentTHead):
        return _of_majority(problem, z, low, noise)
    part = head.component if isinstance(head, ComponentHead) else head
    assert isinstance(part, FactorizedHead)
    varies = (part.collapsible | part.sharpening) & set(head.eta_names)
    # A prior bounds the weights of a predicted dispersion, which then cannot go to zero for a group of rows only.
    return _of_group(problem, z, low, noise, exact) if varies and problem.prior.flat else None


def on_a_plane(problem: Problem) -> bool:
    """Whether a linear model fits all exact (uncensored) rows, of which there are some, without error.

    If not, the exact rows keep a constant scale from going to zero. False for a head without a collapsible parameter.
    """
    at = _targets(problem)
    if at is None or not (near := at.exact & np.isfinite(at.low)).any():
        return False
    return fitted(at.z[near], at.low[near], at.noise[near]) is not None


class _Targets(NamedTuple):
    """Design z (n, p), and the bounds (n,) between which an exact fit lies, in raw units less `middle`.

    `noise` (n,) is the rounding error of `low`.
    """

    z: Array
    low: Array
    high: Array
    noise: Array
    middle: float

    @property
    def exact(self) -> Array:
        """Whether each row is an exact observation rather than a pair of bounds, (n,)."""
        same: Array = self.low == self.high
        return same


def _targets(problem: Problem) -> _Targets | None:
    """The design and targets of a problem; None for a head without a collapsible parameter."""
    head = problem.head
    between = head.fitted_between(problem.rows.y)
    if head.floored or between is None:
        return None
    z = problem.design(problem.rows)[:, problem.design_columns(0)].numpy()
    low, high = (((eta - problem.rows.first_offset) / head.gain[0]).numpy() for eta in between)
    if not bool(problem.has_intercept[0]):
        return _Targets(z, low, high, _EPS * np.abs(low), float(head.center[0] / head.gain[0]))
    # Centre on a target value, to keep digits: the head's center is arbitrary where the null model has no maximum.
    both = np.concatenate([low, high])
    middle = float(np.median(both[np.isfinite(both)]))
    return _Targets(z, low - middle, high - middle, _EPS * np.abs(low), middle)


def has_exact(problem: Problem) -> bool:
    """Whether there is an exact row, whose density goes to zero as a dispersion goes to infinity."""
    between = problem.head.fitted_between(problem.rows.y)
    return between is None or bool((between[0] == between[1]).any())


def fitted(z: Array, y: Array, noise: Array) -> Array | None:
    """Coefficients (p,) with z (n, p) · beta = y (n,) up to rounding and the `noise` (n,) of y; or None."""
    if not len(y):
        return np.zeros(z.shape[1])
    few = 2 * z.shape[1] + 16
    if len(y) > 2 * few and fitted(z[:few], y[:few], noise[:few]) is None:
        return None
    beta = np.linalg.lstsq(z, y, rcond=None)[0]
    return beta if bool(_is_on(z, y, noise, beta).all()) else None


def _is_on(z: Array, y: Array, noise: Array, beta: Array) -> Array:
    """Whether each row lies on the plane z · beta, up to rounding, (n,)."""
    on: Array = np.abs(y - z @ beta) <= _ROUNDING * (np.abs(y) + np.abs(z) @ np.abs(beta)) + noise
    return on


def _within_bounds(z: Array, low: Array, high: Array, line: Array, seconds: float) -> Collapse | None:
    """The collapse where a linear model that fits all exact rows also lies within the bounds of the censored rows.

    As the scale goes to zero, every row within its bounds becomes certain. In (location / scale, 1 / scale), where the
    NLL is convex (Olsen, 1978), such a model is a direction along which no row's NLL rises.
    """
    exact = low == high
    basis = null_space(z[exact])
    inside = np.concatenate([z @ basis, (z @ line)[:, None]], 1)
    has_low, has_high = ~exact & np.isfinite(low), ~exact & np.isfinite(high)
    above, below = inside[has_low].copy(), -inside[has_high]
    above[:, -1] -= low[has_low]
    below[:, -1] += high[has_high]
    precision = np.zeros((1, inside.shape[1]))
    precision[0, -1] = 1.0
    found = search(np.zeros((0, inside.shape[1])), np.concatenate([precision, above, below]), precision[:0], seconds)
    if found.direction is None or not found.grown[0]:
        return None
    if exact.any():
        what = "the linear model fits all that is known exactly, within the bounds of all other rows"
        return Collapse(f"{what}: the likelihood is unbounded as scale goes to 0")
    what = "a linear combination of the features lies within the bounds of every row"
    certain = 0.0 if bool(found.grown.all()) else None
    return Collapse(f"{what}: each becomes certain as scale goes to 0", certain)


def _of_zeros(at: _Targets, seconds: float) -> Collapse | None:
    """A head with a probability of zero: all positive rows fitted exactly, and all zeros told from them.

    A zero is fitted by an infinite eta: along a direction that moves every zero there and no other row, zeros become
    certain while the dispersion goes to 0.
    """
    near, far = np.isfinite(at.low), ~np.isfinite(at.low)
    if not near.any() or fitted(at.z[near], at.low[near], at.noise[near]) is None:
        return None
    found = search(at.z[near], at.z[far] * np.sign(at.low[far])[:, None], at.z[:0], seconds)
    if found.direction is None or not found.grown.all():
        return None
    what = "the linear model fits every positive row exactly, and tells all zeros from them"
    return Collapse(f"{what}: the likelihood is unbounded as the dispersion goes to 0")


def _of_majority(problem: Problem, z: Array, y: Array, noise: Array) -> Collapse | None:
    """Student's t: the likelihood is unbounded if m of n rows are fitted exactly, m > df · (n − m).

    If a plane passes through more than half of the rows, least absolute deviations find it.

    Source: Fernández & Steel (1999).
    """
    head, weight = problem.head, problem.rows.weight.numpy()
    least = getattr(head, "fixed", {}).get("df", 1.0)
    few = slice(None, None, 1 + len(y) // _MOST)
    line = interior_point(Deviations(z[few], y[few], weight[few], np.zeros(z.shape[1]))).beta
    on = _is_on(z, y, noise, line)
    if not weight[on].sum() > least * weight[~on].sum():
        return None
    what = f"{int(on.sum())} of {len(y)} rows are fitted exactly, more than tails as heavy as these can do without"
    return Collapse(f"{what}: the likelihood is unbounded as scale goes to 0")


def _of_group(problem: Problem, z: Array, y: Array, noise: Array, exact: Array) -> Collapse | None:
    """Predicted dispersion: a feature with two values, where all rows with one of them are fitted exactly."""
    design = problem.design(problem.rows).numpy()
    own = {int(j) for k in range(1, problem.head.eta_dim) for j in problem.design_columns(k)} - {problem.num_active}
    for column in sorted(own):
        values = np.unique(design[:, column])
        if len(values) != 2:
            continue
        for value in values:
            group = design[:, column] == value
            if exact[group].all() and fitted(z[group], y[group], noise[group]) is not None:
                which = f"{int(group.sum())} of {len(y)} rows are fitted exactly"
                return Collapse(f"{which}: the likelihood is unbounded as their scale goes to 0")
    return None


def _of_combination(problem: Problem) -> Collapse | None:
    """Several targets: a linear combination of their residuals that is zero in all rows."""
    rows = problem.rows
    root = rows.weight.sqrt().unsqueeze(1)
    z, y = (root * problem.design(rows)).numpy(), (root * rows.y).numpy()
    y = y - root.numpy() * np.average(rows.y.numpy(), axis=0, weights=rows.weight.numpy())
    residual = y - z @ np.linalg.lstsq(z, y, rcond=None)[0]
    size = np.linalg.norm(y, axis=0)
    size[size == 0] = 1.0
    values = np.linalg.svd(residual / size, compute_uv=False)
    if len(values) == y.shape[1] and values.min() > _FLAT:
        return None
    what = "a combination of the targets is constant, or fitted exactly by the linear model"
    return Collapse(f"{what}: the likelihood is unbounded as its scale goes to 0")
