"""Least absolute deviations of many rows, by globbing the rows whose residual has a known sign."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from mlefw.baseline.interior_point import Array, Deviations, Fit, factored, gram, interior_point
from mlefw.baseline.problem import Problem

_MAX_ROUNDS = 12


class Globbing:
    """The minimum of Σ w |y − z beta| + ½ Σ ridge beta² + Σ rate |beta|, after Portnoy & Koenker (1997).

    A fit to a sample of rows tells which rows surely lie above or below the plane; each of these two groups is replaced
    by its mean, with its total weight (a glob). By the triangle inequality the reduced objective is a lower bound of
    the full one, with equality if no row of a group is on the wrong side. So its dual values bound the error of the
    full fit, and wrong rows are released from the groups until that bound is rounding error. x is read block by block.

    z holds the design columns of the first eta column, and y the target less its offset, in units of the raw output.
    """

    def __init__(self, problem: Problem) -> None:
        rows, head = problem.rows, problem.head
        self.problem = problem
        self.columns = problem.design_columns(0)
        self.y: Array = ((rows.y - rows.first_offset - head.center[0]) / head.gain[0]).numpy()
        self.guess: _Guess | None = None
        # A quantile other than the median adds a linear term to absolute deviations: 2 ρ(r) = |r| + (2 level − 1) r.
        self.tilt = 2 * getattr(head, "level", 0.5) - 1
        self.extra: _Extra | None = None

    def fit(self, weight: Array, ridge: Array, rate: Array) -> Fit:
        """The minimum for weights (n,), ridge (p,) and rate (p,); a previous call's fit serves as a start."""
        used = np.flatnonzero(weight > 0)
        if not len(self.columns):
            return Fit(np.zeros(0), float(weight @ np.abs(self.y)), 0.0, 0)
        if self.problem.num_active == 0:
            return _median(self.y[used], weight[used], self.tilt)
        self.extra = self._tilted(weight) if self.tilt else None
        fit = self._fit(used, weight, ridge, rate)
        return fit if self.extra is None else fit._replace(objective=fit.objective - self.extra.constant)

    def losses(self, residual: Array) -> Array:
        """The deviation |r| of each row, or for a quantile other than the median twice its pinball loss."""
        distance: Array = np.abs(residual)
        return distance + self.tilt * residual if self.tilt else distance

    def _tilted(self, weight: Array) -> "_Extra":
        """The linear term tilt · Σ w (y − z beta) as one more absolute deviation, far on the positive side."""
        sums = np.zeros(self.problem.num_active + 1)
        for _, z, _, w in self.blocks(weight):
            sums += w @ z
        return _Extra.of(self.tilt, sums, self.y, weight)

    def _fit(self, used: Array, weight: Array, ridge: Array, rate: Array) -> Fit:
        size = round(1.2 * len(ridge) ** 0.5 * len(used) ** (2 / 3))
        while 3 * size < len(used):
            found = self._reduced(size, used, weight, ridge, rate)
            if found is not None:
                return found
            size *= 2
        return interior_point(_under_prior(*_with(self._take(used, weight), self.extra), ridge, rate))

    def _take(self, index: Array, weight: Array) -> tuple[Array, Array, Array]:
        z = _chosen(self.problem.design(self.problem.rows.take(torch.from_numpy(index))), self.columns)
        return z, self.y[index], weight[index]

    def _reduced(self, size: int, used: Array, weight: Array, ridge: Array, rate: Array) -> Fit | None:
        """The minimum from the previous guess, or one from a sample; None if it was wrong on too many rows."""
        warm = self.guess is not None
        guess = self.guess or self._from_sample(size, used, weight, ridge, rate)
        parts, nothing = self._split(guess, weight), 1e-15 * float(weight @ np.abs(self.y))
        for count in range(_MAX_ROUNDS):
            fit = interior_point(_under_prior(*_with(parts.reduced(), self.extra), ridge, rate))
            wrong, excess = self._check(parts, fit.beta, weight)
            self.guess = guess._replace(beta=fit.beta)
            gap = fit.gap + excess
            if not len(wrong) or excess <= 1e-14 * fit.objective + nothing:
                return fit._replace(objective=fit.objective + excess, gap=gap)
            if len(wrong) > size and not count:
                break
            parts = parts.released(wrong, *self._take(wrong, weight))
        self.guess = None
        return self._reduced(size, used, weight, ridge, rate) if warm else None

    def _from_sample(self, size: int, used: Array, weight: Array, ridge: Array, rate: Array) -> "_Guess":
        """A guess from a sample of `size` observations, one at random from each of `size` equal stretches."""
        jitter = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size)).numpy()
        reached = np.cumsum(weight[used])
        drawn = np.searchsorted(reached, (np.arange(size) + jitter) * (reached[-1] / size), side="right")
        index, times = np.unique(np.minimum(drawn, len(used) - 1), return_counts=True)
        z, y, _ = self._take(used[index], weight)
        w = times.astype(np.float64)
        share = size / float(reached[-1])
        extra = _Extra.of(self.tilt, w @ z, y, w) if self.tilt else None
        parts = _with((z, y, w), extra)
        beta = interior_point(_under_prior(*parts, share * ridge, share * rate), tolerance=1e-6).beta
        root, (triangle, _) = factored(gram(z, w) + np.diag(share * ridge + 1e-12 * size))
        whiten = root[:, None] * solve_triangular(triangle, np.eye(len(beta)), lower=True).T
        score = np.abs(y - z @ beta) / np.linalg.norm(z @ whiten, axis=1)
        return _Guess(beta, whiten, float(np.quantile(score, min(1.0, 1.2 * size / len(used)))))

    def _split(self, guess: "_Guess", weight: Array) -> "_Parts":
        """Rows within the uncertainty of the guess, and the sums over the rows above and over those below it."""
        side = np.zeros(len(weight), dtype=np.int8)
        sums, kept = np.zeros((2, len(guess.beta) + 2)), []
        for rows, z, y, w in self.blocks(weight):
            residual = y - z @ guess.beta
            here = np.sign(residual).astype(np.int8)
            band = np.sqrt(np.square(z @ guess.whiten).sum(1))
            unsure = (np.abs(residual) <= guess.cut * band) & (w > 0)
            here[unsure] = 0
            side[rows] = here
            for k, sign in enumerate((1, -1)):
                share = w * (here == sign)
                sums[k] += np.concatenate([share @ z, [share @ y, share.sum()]])
            kept.append((z[unsure], y[unsure], w[unsure]))
        z, y, w = (np.concatenate(part) for part in zip(*kept, strict=True))
        return _Parts(z, y, w, side, sums)

    def _check(self, parts: "_Parts", beta: Array, weight: Array) -> tuple[Array, float]:
        """Globbed rows on the wrong side of the plane, and the excess of the full objective over the reduced one."""
        wrong, sizes, means = [], np.zeros(2), np.zeros(2)
        for rows, z, y, w in self.blocks(weight):
            side, residual = parts.side[rows], y - z @ beta
            off = np.flatnonzero(side * residual < 0)
            off = off[w[off] > 0]
            wrong.append(off + rows.start)
            for k, sign in enumerate((1, -1)):
                sizes[k] += float(w[off] @ (np.abs(residual[off]) * (side[off] == sign)))
        for k, sign in enumerate((1, -1)):
            means[k] = sign * float(parts.sums[k, -2] - parts.sums[k, :-2] @ beta)
        # If the mean of a group is itself on the wrong side, its own absolute deviation is in the reduced objective.
        excess = 2 * sizes + 2 * np.minimum(means, 0)
        return np.concatenate(wrong), float(np.maximum(excess, 0).sum())

    def blocks(self, weight: Array, columns: Tensor | None = None) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Blocks of rows: their position, design, target and weight; the design may be of other `columns`."""
        start, columns = 0, self.columns if columns is None else columns
        for rows in self.problem.rows.blocks(self.problem.block):
            here = slice(start, start + rows.num_rows)
            start = here.stop
            yield here, _chosen(self.problem.design(rows), columns), self.y[here], weight[here]


def spread(problem: Problem, beta: Array, k: int = 0) -> Tensor:
    """Coefficients of all design columns, (num_active + 1,), from those of the columns that eta column k has."""
    whole = torch.zeros(problem.num_active + 1, dtype=torch.float64)
    whole[problem.design_columns(k)] = torch.from_numpy(beta)
    return whole


def _chosen(design: Tensor, columns: Tensor) -> Array:
    chosen: Array = (design if len(columns) == design.shape[1] else design[:, columns]).numpy()
    return chosen


class _Extra(NamedTuple):
    """A row z (p,), y with weight 1, whose absolute deviation is a linear function of beta plus a constant."""

    z: Array
    y: float
    constant: float

    @classmethod
    def of(cls, tilt: float, sums: Array, y: Array, weight: Array) -> "_Extra":
        """The row for tilt · Σ w (y − z beta), given Σ w z; it is positive wherever the objective may be least.

        There the loss is no larger than that of the median alone, so that Σ w |r| is at most the ratio of the two
        slopes of the pinball loss times the deviation S from the median.
        """
        ratio = (1 + abs(tilt)) / (1 - abs(tilt))
        constant = (ratio + 1) * float(weight @ np.abs(y - np.median(y[weight > 0])))
        return cls(tilt * sums, tilt * float(weight @ y) + constant, constant)


def _with(parts: tuple[Array, Array, Array], extra: _Extra | None) -> tuple[Array, Array, Array]:
    """Rows z, y and weight with one more row, if there is one."""
    if extra is None:
        return parts
    z, y, weight = parts
    return np.concatenate([z, extra.z[None]]), np.append(y, extra.y), np.append(weight, 1.0)


class _Guess(NamedTuple):
    """An approximate fit.

    Attributes:
        beta: coefficients, (p,).
        whiten: matrix (p, p) with |z · whiten| proportional to the standard error of the fit at z.
        cut: number of these standard errors within which the sign of a residual is uncertain.
    """

    beta: Array
    whiten: Array
    cut: float


class _Parts(NamedTuple):
    """The rows z, y, weight that are kept, the side (n,) of every row (0 if kept), and sums of the two groups.

    `sums` (2, p + 2) holds Σ w (z, y, 1) over the rows above and over those below the plane.
    """

    z: Array
    y: Array
    weight: Array
    side: Array
    sums: Array

    def reduced(self) -> tuple[Array, Array, Array]:
        """The kept rows and the mean of each group, as z, y and weight."""
        sums = self.sums[self.sums[:, -1] > 0]
        total = sums[:, -1]
        return (
            np.concatenate([self.z, sums[:, :-2] / total[:, None]]),
            np.concatenate([self.y, sums[:, -2] / total]),
            np.concatenate([self.weight, total]),
        )

    def released(self, index: Array, z: Array, y: Array, weight: Array) -> "_Parts":
        """The parts with the rows at `index` kept rather than globbed."""
        side, sums = self.side.copy(), self.sums.copy()
        for k, sign in enumerate((1, -1)):
            share = weight * (side[index] == sign)
            sums[k] -= np.concatenate([share @ z, [share @ y, share.sum()]])
            if not (side == sign).sum() - (side[index] == sign).sum():
                sums[k] = 0.0
        side[index] = 0
        return _Parts(
            np.concatenate([self.z, z]),
            np.concatenate([self.y, y]),
            np.concatenate([self.weight, weight]),
            side,
            sums,
        )


def _under_prior(z: Array, y: Array, weight: Array, ridge: Array, rate: Array) -> Deviations:
    """The problem with a Laplace prior as one more absolute deviation for each coefficient."""
    under = rate > 0
    if under.any():
        z = np.concatenate([z, np.eye(len(rate))[under]])
        y, weight = np.concatenate([y, np.zeros(under.sum())]), np.concatenate([weight, rate[under]])
    return Deviations(z, y, weight, ridge)


def _median(y: Array, weight: Array, tilt: float = 0.0) -> Fit:
    """The weighted median, or the quantile at ½ (1 + tilt); the middle of the interval if it is not unique."""
    if not tilt and (weight == weight[0]).all():
        beta = float(np.median(y))
        return Fit(np.array([beta]), float(weight @ np.abs(y - beta)), 0.0, 1)
    order = np.argsort(y, kind="stable")
    above = np.cumsum(weight[order])
    half = 0.5 * (1 + tilt) * above[-1]
    first = int(np.searchsorted(above, half * (1 - 1e-15)))
    last = min(first + 1, len(y) - 1) if above[first] <= half * (1 + 1e-15) else first
    beta = 0.5 * (y[order[first]] + y[order[last]])
    return Fit(np.array([beta]), float(weight @ (np.abs(y - beta) + tilt * (y - beta))), 0.0, 1)
