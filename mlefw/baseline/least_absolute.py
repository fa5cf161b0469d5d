"""The linear Laplace model: least absolute deviations, under any of our priors."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.least_squares import minimize_on
from mlefw.baseline.problem import Problem
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior


class LeastAbsolute(Solver):
    """A primal-dual interior point method with Mehrotra's corrector (Portnoy & Koenker, 1997), then the exact vertex.

    The learnt scale is the weighted mean absolute residual. Under a prior it is found by a search over log scale with
    the exact convex inner solve; a Laplace prior is one more absolute deviation for each weight. The residual reported
    is the duality gap per observation.
    """

    def supports(self, problem: Problem) -> bool:
        """Laplace head with a constant scale, any of our priors."""
        head = problem.head
        constant = isinstance(head, LaplaceHead) and head.eta_names == ("loc",)
        return constant and isinstance(problem.prior, NoPrior | L2Prior | L1Prior | ElasticNetPrior)

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with its duality gap."""
        used = problem.rows.weight > 0
        rows = problem.rows.take(used)
        head = problem.head
        assert isinstance(head, LaplaceHead)
        gain = float(head.gain[0])
        z = problem.design(rows)
        y = (rows.y - rows.offset - head.center[0]) / gain
        fixed = head.fixed["scale"] / gain if "scale" in head.fixed else None
        if not problem.prior.flat:
            fit, scale = _Penalised(z, y, rows.weight, *_strengths(problem.prior)).best(fixed)
        else:
            fit = to_vertex(z, y, rows.weight, interior_point(z, y, rows.weight, z.new_zeros(z.shape[1])))
            scale = fixed if fixed is not None else fit.loss / problem.population
        smallest = 1e-12 * float((rows.weight @ (y - y.median()).abs()) / problem.population)
        if fixed is None and scale <= smallest:
            return _perfect_fit(problem, fit)
        theta = problem.with_scale(fit.beta, scale)
        gap = fit.gap / (scale * problem.population)
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=gap,
            solver="interior point",
            num_steps=fit.num_steps,
            converged=gap < 1e-8,
        )


class Fit(NamedTuple):
    """beta (p,), Σ w|r|, the duality gap in the same unit, and the number of interior point steps."""

    beta: Tensor
    loss: float
    gap: float
    num_steps: int


def interior_point(z: Tensor, y: Tensor, weight: Tensor, ridge: Tensor, max_steps: int = 100) -> Fit:
    """Argmin Σ w |y − z beta| + ½ Σ ridge · beta², for z (n, p), y and weight (n,), ridge (p,).

    The residual is u − v with u, v ≥ 0, and d in [−w, w] are the dual values: (w − d) u = (w + d) v = mu.
    """
    start = torch.linalg.lstsq(z, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    beta, residual = start, y - z @ start
    spread = float(residual.abs().mean()) + 1e-300
    u, v, d = residual.clamp(min=0) + spread, (-residual).clamp(min=0) + spread, torch.zeros_like(y)
    best = Fit(beta, float(weight @ residual.abs()), math.inf, 0)
    for count in range(1, max_steps + 1):
        up, down = weight - d, weight + d
        primal = y - z @ beta - u + v
        dual = z.T @ d - ridge * beta
        gap = float(up @ u + down @ v)
        loss = float(weight @ (y - z @ beta).abs())
        if gap < best.gap and math.isfinite(gap):
            best = Fit(beta, loss, gap, count)
        scale = loss + 1e-300
        if not math.isfinite(gap) or (gap < 1e-13 * scale and float(dual.abs().max()) < 1e-9 * float(weight.sum())):
            break
        q = 1 / (u / up + v / down)
        system = z.T @ (q.unsqueeze(1) * z) + torch.diag(ridge)
        root = system.diagonal().clamp(min=1e-300).rsqrt()
        factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * system * root)
        if bool(failed):
            break

        state = _State(z, u, v, up, down, q, primal, dual, root, factor)
        _, du, dv, dd = state.newton(-up * u, -down * v)
        length = _length(u, v, up, down, du, dv, dd)
        mu = gap / (2 * len(y))
        after = float((up - length * dd) @ (u + length * du) + (down + length * dd) @ (v + length * dv)) / (2 * len(y))
        target = mu * (after / mu) ** 3
        step, du, dv, dd = state.newton(target - up * u + dd * du, target - down * v - dd * dv)
        length = min(1.0, 0.9995 * _length(u, v, up, down, du, dv, dd))
        beta, u, v, d = beta + length * step, u + length * du, v + length * dv, d + length * dd
    return best


class _State(NamedTuple):
    """One iterate with its factored system: a prediction and a correction share it."""

    z: Tensor
    u: Tensor
    v: Tensor
    up: Tensor
    down: Tensor
    q: Tensor
    primal: Tensor
    dual: Tensor
    root: Tensor
    factor: Tensor

    def newton(self, on_u: Tensor, on_v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps of beta, u, v and d for given right sides of the two complementarity conditions."""
        rho = self.primal - on_u / self.up + on_v / self.down
        right = self.root * (self.z.T @ (self.q * rho) + self.dual)
        step = self.root * torch.cholesky_solve(right.unsqueeze(1), self.factor).squeeze(1)
        dd = self.q * (rho - self.z @ step)
        return step, (on_u + self.u * dd) / self.up, (on_v - self.v * dd) / self.down, dd


def _length(u: Tensor, v: Tensor, up: Tensor, down: Tensor, du: Tensor, dv: Tensor, dd: Tensor) -> float:
    """The longest step that keeps u, v, w − d and w + d non-negative, at most 1."""
    ratios = [-du / u, -dv / v, dd / up, -dd / down]
    return min(1.0, 1.0 / max(max(float(ratio.max()) for ratio in ratios), 1e-300))


def to_vertex(z: Tensor, y: Tensor, weight: Tensor, fit: Fit) -> Fit:
    """The exact solution near an interior point: a plane through as many rows as it has coefficients.

    Without a penalty some optimum passes exactly through p independent rows; those with the least residuals are
    tried, and taken where the loss does not rise.
    """
    count = z.shape[1]
    order = (y - z @ fit.beta).abs().argsort()[: 4 * count + 16]
    chosen: list[int] = []
    basis = z.new_zeros(0, count)
    for i in order.tolist():
        row = z[i] / z[i].norm()
        left = row - basis.T @ (basis @ row)
        left = left - basis.T @ (basis @ left)
        if left.norm() > 1e-7:
            basis = torch.cat([basis, (left / left.norm()).unsqueeze(0)])
            chosen.append(i)
        if len(chosen) == count:
            break
    if len(chosen) < count:
        return fit
    beta = torch.linalg.solve(z[chosen], y[chosen])
    loss = float(weight @ (y - z @ beta).abs())
    if not loss <= fit.loss * (1 + 1e-15):
        return fit
    return Fit(beta, loss, max(0.0, fit.gap - (fit.loss - loss)), fit.num_steps)


def _strengths(prior: Prior) -> tuple[float, float]:
    """The coefficients of ½ weight² and of |weight| in the negative log-prior."""
    if isinstance(prior, L2Prior):
        return prior.scale**-2, 0.0
    return (prior.l2_scale**-2 if isinstance(prior, ElasticNetPrior) else 0.0), prior.rate


class _Penalised(NamedTuple):
    """Least absolute deviations with ½ precision · weight² + rate · |weight| on all coefficients but the last."""

    z: Tensor
    y: Tensor
    weight: Tensor
    precision: float
    rate: float

    def at(self, scale: float) -> Fit:
        """The fit for a given scale of the likelihood."""
        z, y, weight = self.z, self.y, self.weight
        unit = torch.ones(z.shape[1], dtype=z.dtype)
        unit[-1] = 0.0
        if self.rate:
            extra = torch.eye(z.shape[1], dtype=z.dtype)[:-1]
            z, y = torch.cat([z, extra]), torch.cat([y, y.new_zeros(len(extra))])
            weight = torch.cat([weight, weight.new_full((len(extra),), scale * self.rate)])
        fit = interior_point(z, y, weight, scale * self.precision * unit)
        if self.rate and not self.precision:
            fit = to_vertex(z, y, weight, fit)
        if self.rate:
            tiny = (unit > 0) & (fit.beta.abs() < 1e-9 * (1e-3 + fit.beta[:-1].abs().max()))
            fit = fit._replace(beta=torch.where(tiny, torch.zeros_like(fit.beta), fit.beta))
        return fit._replace(loss=float(self.weight @ (self.y - self.z @ fit.beta).abs()))

    def best(self, fixed: float | None) -> tuple[Fit, float]:
        """The fit with its scale, given or the best one.

        A stationary scale is a mean absolute residual: between the unpenalised fit's and the null model's.
        """
        if fixed is not None:
            return self.at(fixed), fixed
        total = float(self.weight.sum())
        none = torch.zeros(self.z.shape[1], dtype=self.z.dtype)
        least = interior_point(self.z, self.y, self.weight, none).loss / total
        most = interior_point(self.z[:, -1:], self.y, self.weight, none[-1:]).loss / total
        if least <= 1e-12 * most:
            return self.at(least), least
        scale = math.exp(minimize_on(self._profile, math.log(least), math.log(max(most, least * (1 + 1e-9))), 13))
        for _ in range(50):
            fit = self.at(scale)
            if abs(fit.loss / total - scale) < 1e-14 * scale:
                break
            scale = fit.loss / total
        return self.at(scale), scale

    def _profile(self, log_scale: float) -> float:
        scale = math.exp(log_scale)
        fit = self.at(scale)
        weights = fit.beta[:-1]
        prior = 0.5 * self.precision * float(weights.square().sum()) + self.rate * float(weights.abs().sum())
        return float(self.weight.sum()) * log_scale + fit.loss / scale + prior


def _perfect_fit(problem: Problem, fit: Fit) -> Solution:
    theta = problem.with_scale(fit.beta, 1e-3)
    return Solution(
        problem=problem,
        theta=theta,
        objective=problem.value(theta),
        residual=fit.loss / problem.population,
        solver="interior point",
        num_steps=fit.num_steps,
        exists=False,
        reason="the linear model fits every row exactly: the likelihood is unbounded as scale goes to 0",
    )
