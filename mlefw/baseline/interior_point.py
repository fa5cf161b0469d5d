"""Minimisation of absolute or Huber deviations by an interior point method with crossover to a vertex."""

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, qr

Array = np.ndarray
_BLOCK = 2048


class Deviations(NamedTuple):
    """Σ weight |y − z beta| + ½ Σ ridge beta²: z (n, p), y (n,), weight (n,) positive, ridge (p,).

    With `soft` (n,) deviations are Huber's: r² / (2 soft) up to |r| = weight · soft, then weight · |r| less a constant.
    """

    z: Array
    y: Array
    weight: Array
    ridge: Array
    soft: Array | float = 0.0

    def losses(self, residual: Array) -> Array:
        """The deviation of each row, (n,)."""
        distance = np.abs(residual)
        inner = np.minimum(distance, self.weight * self.soft)
        square = np.divide(inner**2, 2 * self.soft, out=np.zeros_like(inner), where=inner > 0)
        rounded: Array = square + self.weight * (distance - inner)
        return rounded

    def objective(self, beta: Array) -> float:
        """The sum of deviations and the ridge penalty."""
        return float(self.losses(self.y - self.z @ beta).sum() + 0.5 * self.ridge @ beta**2)


class Fit(NamedTuple):
    """Coefficients beta (p,), their objective, a bound `gap` on its excess, and the number of interior point steps."""

    beta: Array
    objective: float
    gap: float
    num_steps: int


def interior_point(of: Deviations, tolerance: float = 1e-13, max_steps: int = 100) -> Fit:
    """The minimum by a primal-dual interior point method with Mehrotra's corrector (Portnoy & Koenker, 1997).

    The residual is u − v + soft · d with u, v ≥ 0 and dual values d in [−w, w]: (w − d) u = (w + d) v = mu. Without
    ridge and `soft`, some optimum passes through as many rows as there are coefficients; vertices near the path are
    tried. The gap is to the objective of feasible dual values, so that it bounds the excess in any case.
    """
    z, y, weight, ridge, soft = of
    beta = _start(of)
    residual = y - z @ beta
    best = Fit(beta, of.objective(beta), of.objective(beta), 0)
    nothing = 1e-15 * float(weight @ np.abs(y))
    if best.objective <= nothing:
        return best
    spread = float(np.abs(residual).mean()) + 1e-300
    u, v = np.maximum(residual, 0) + spread, np.maximum(-residual, 0) + spread
    # Keep w − d and w + d as variables: computed from d, the smaller one would cancel.
    up, down = weight.copy(), weight.copy()
    for count in range(1, max_steps + 1):
        complementarity = float(up @ u + down @ v)
        if not math.isfinite(complementarity):
            break
        d, q = 0.5 * (down - up), 1 / (u / up + v / down + soft)
        if complementarity < 1e-3 * best.objective or count == max_steps:
            found = _certified(of, beta, d, q, count)
            best = found if found.gap < best.gap else best._replace(num_steps=count)
            if best.gap <= tolerance * best.objective + nothing or complementarity < 1e-15 * best.objective:
                break
        system = _System(of, u, v, up, down, q, y - z @ beta - u + v - soft * d, z.T @ d - ridge * beta)
        _, du, dv, dd = system.newton(-up * u, -down * v)
        length = _length(u, v, up, down, du, dv, dd)
        mu = complementarity / (2 * len(y))
        after = float((up - length * dd) @ (u + length * du) + (down + length * dd) @ (v + length * dv)) / (2 * len(y))
        target = mu * (after / mu) ** 3
        step, du, dv, dd = system.newton(target - up * u + dd * du, target - down * v - dd * dv)
        length = min(1.0, 0.9995 * _length(u, v, up, down, du, dv, dd))
        beta, u, v = beta + length * step, u + length * du, v + length * dv
        up, down = up - length * dd, down + length * dd
    return best


def _start(of: Deviations) -> Array:
    """Weighted least squares coefficients, of least norm if the columns are dependent."""
    root = np.sqrt(of.weight)
    try:
        factor = cho_factor(gram(of.z, of.weight) + np.diag(of.ridge))
        if np.diag(factor[0]).min() > 1e-6 * np.diag(factor[0]).max():
            return np.asarray(cho_solve(factor, of.z.T @ (of.weight * of.y)))
    except np.linalg.LinAlgError:
        pass
    return np.asarray(np.linalg.lstsq(root[:, None] * of.z, root * of.y, rcond=None)[0])


def gram(z: Array, weight: Array) -> Array:
    """The matrix z' diag(weight) z, (p, p), as a product of one factor with its transpose, which BLAS does faster."""
    total = np.zeros((z.shape[1], z.shape[1]))
    for start in range(0, len(z), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scaled = z[rows] * np.sqrt(weight[rows])[:, None]
        total += scaled.T @ scaled
    return total


def factored(system: Array) -> tuple[Array, tuple[Array, bool]]:
    """Scaling and Cholesky factor of a matrix scaled to a unit diagonal, with a small ridge if it is singular."""
    root = 1 / np.sqrt(np.maximum(np.diag(system), 1e-300))
    scaled = root[:, None] * system * root
    for lift in (0.0, 1e-14, 1e-12, 1e-10, 1e-8):
        try:
            return root, cho_factor(scaled + lift * np.eye(len(scaled)), lower=True)
        except np.linalg.LinAlgError:
            continue
    return root, cho_factor(np.eye(len(scaled)), lower=True)


class _System:
    """The linear system of one iterate, factored once for the predictor and the corrector step."""

    def __init__(
        self, of: Deviations, u: Array, v: Array, up: Array, down: Array, q: Array, primal: Array, dual: Array
    ) -> None:
        self.of, self.u, self.v, self.up, self.down = of, u, v, up, down
        self.q, self.primal, self.dual = q, primal, dual
        self.root, self.factor = factored(gram(of.z, q) + np.diag(of.ridge))

    def newton(self, on_u: Array, on_v: Array) -> tuple[Array, Array, Array, Array]:
        """Steps of beta, u, v and d for given right sides of the two complementarity conditions."""
        rho = self.primal - on_u / self.up + on_v / self.down
        right = self.root * (self.of.z.T @ (self.q * rho) + self.dual)
        step = self.root * cho_solve(self.factor, right, check_finite=False)
        dd = self.q * (rho - self.of.z @ step)
        return step, (on_u + self.u * dd) / self.up, (on_v - self.v * dd) / self.down, dd


def _length(u: Array, v: Array, up: Array, down: Array, du: Array, dv: Array, dd: Array) -> float:
    """The longest step that keeps u, v, w − d and w + d non-negative, at most 1."""
    fastest = max(float(ratio.max()) for ratio in (-du / u, -dv / v, dd / up, -dd / down))
    return min(1.0, 1.0 / max(fastest, 1e-300))


def _certified(of: Deviations, beta: Array, d: Array, q: Array, count: int) -> Fit:
    """The interior iterate or the vertex near it, whichever has the smaller duality gap."""
    free = of.ridge == 0
    z = of.z[:, free] if not free.all() else of.z
    slack = np.maximum(np.minimum(of.weight - d, of.weight + d), 0)
    root, factor = factored(gram(z, slack))
    inside = d - slack * (z @ (root * cho_solve(factor, root * (z.T @ d))))
    fit = Fit(beta, of.objective(beta), _gap(of, beta, inside), count)
    return (
        min(fit, _vertex(of, beta, inside, q, count), key=lambda found: found.gap)
        if free.all() and not np.any(of.soft)
        else fit
    )


def _gap(of: Deviations, beta: Array, d: Array) -> float:
    """Objective at beta minus the dual objective at d, shrunk into the box (z'd = 0 where there is no ridge)."""
    d = d / max(1.0, float(np.abs(d / of.weight).max()))
    residual = of.y - of.z @ beta
    under = of.ridge > 0
    gap = float(np.maximum(of.losses(residual) - d * residual + 0.5 * of.soft * d**2, 0).sum())
    if under.any():
        ridge = of.ridge[under]
        gap += 0.5 * float(((ridge * beta[under] - of.z[:, under].T @ d) ** 2 / ridge).sum())
    return gap


def _vertex(of: Deviations, beta: Array, d: Array, q: Array, count: int) -> Fit:
    """The plane through p independent rows, the ones with the largest curvature of the barrier."""
    z, y, weight = of.z, of.y, of.weight
    p = z.shape[1]
    none = Fit(beta, math.inf, math.inf, count)
    if len(y) < p:
        return none
    candidates = np.argpartition(-q, min(4 * p + 16, len(y)) - 1)[: 4 * p + 16]
    order = qr((z[candidates] * q[candidates, None]).T, mode="r", pivoting=True)[-1]
    basis = candidates[order[:p]]
    try:
        beta = np.linalg.solve(z[basis], y[basis])
        residual = y - z @ beta
        signs = np.where(np.abs(residual) > 1e-11 * (np.abs(y) + np.abs(residual)), weight * np.sign(residual), d)
        signs[basis] = 0.0
        signs[basis] = -np.linalg.solve(z[basis].T, z.T @ signs)
    except np.linalg.LinAlgError:
        return none
    if not (np.isfinite(beta).all() and np.isfinite(signs).all()):
        return none
    return Fit(beta, of.objective(beta), _gap(of, beta, signs), count)
