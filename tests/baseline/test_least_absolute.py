"""Least absolute deviations of many rows: reduced to few, exact on all; the gap against linear programs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_oracles import Array, Sample, least_absolute, sample
from exact_solving import problem_of
from scipy.optimize import linprog, minimize_scalar

from mlefw.baseline import globbing
from mlefw.baseline.globbing import Globbing
from mlefw.baseline.interior_point import Deviations, interior_point
from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior

N, P = 3000, 3
KINDS = (
    "plain",
    "cauchy",
    "counts on a grid",
    "whole numbers, mostly fitted",
    "rare dummies",
    "pareto weights",
    "half the weights zero",
    "offset",
    "sorted by target",
    "heavy-tailed features",
    "forty rows again and again",
    "scale varies",
    "two thirds zero",
)


def drawn(kind: str, seed: int) -> Sample:
    """Enough rows for the reduction to be taken."""
    random = np.random.default_rng(seed)
    x, one = random.normal(size=(N, P)), np.ones(N)
    y = x @ np.ones(P) + random.laplace(size=N)
    grid = random.integers(0, 4, size=(N, P)).astype(float)
    again, order = random.integers(0, 40, N), np.argsort(y)
    dummies = np.column_stack([np.arange(N) < 3, random.random(N) < 0.002, x[:, 2:]])
    heavy = random.standard_t(1.2, size=(N, P))
    made = {
        "plain": lambda: sample(x, y),
        "cauchy": lambda: sample(x, x @ np.ones(P) + random.standard_cauchy(N)),
        "counts on a grid": lambda: sample(grid, random.poisson(np.exp(0.5 + 0.3 * grid[:, 0]))),
        "whole numbers, mostly fitted": lambda: sample(
            grid, grid @ np.arange(1.0, P + 1) + (random.random(N) < 0.4) * random.integers(-3, 4, N)
        ),
        "rare dummies": lambda: sample(dummies, y),
        "pareto weights": lambda: sample(x, y, weight=np.ceil(3 * random.pareto(1.0, N)) + 1),
        "half the weights zero": lambda: sample(x, y, weight=(random.random(N) < 0.5) * one),
        "offset": lambda: sample(x, y, offset=5 * np.sin(np.arange(N))),
        "sorted by target": lambda: sample(x[order], y[order]),
        "heavy-tailed features": lambda: sample(heavy, heavy @ np.ones(P) + random.laplace(size=N)),
        "forty rows again and again": lambda: sample(x[again], y[again]),
        "scale varies": lambda: sample(x, x @ np.ones(P) + random.laplace(size=N) * np.exp(1.5 * x[:, 0])),
        "two thirds zero": lambda: sample(x, np.where(random.random(N) < 0.67, 0.0, np.abs(random.normal(size=N)))),
    }
    return made[kind]()


def dual_optimum(z: Array, y: Array, weight: Array) -> float:
    """Max d'y over z'd = 0, |d| ≤ weight: the least Σ weight |y − z beta|."""
    found = linprog(
        -y,
        A_eq=z.T,
        b_eq=np.zeros(z.shape[1]),
        bounds=np.column_stack([-weight, weight]),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return -float(found.fun)


def standardised(of: Sample) -> tuple[Array, Array]:
    """Design with a column of ones last and target less its offset, in the units of the problem."""
    used = of.weight
    mean = used @ of.x / used.sum()
    spread = np.sqrt(used @ (of.x - mean) ** 2 / used.sum())
    return np.column_stack([(of.x - mean) / spread, np.ones(len(of.y))]), of.y - of.offset


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_are_fitted_exactly(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of = drawn(kind, seed)
    sizes: list[int] = []

    def counting(deviations: Deviations, *arguments: float, **settings: float) -> object:
        sizes.append(len(deviations.y))
        return interior_point(deviations, *arguments, **settings)

    monkeypatch.setattr(globbing, "interior_point", counting)
    problem = problem_of("laplace_fixed", of, scale=1.0)
    sizes.clear()
    fit = Globbing(problem).fit(of.weight, np.zeros(P + 1), np.zeros(P + 1))
    assert sizes[0] < N / 3
    unit = float(problem.head.gain[0])
    z, t = standardised(of)
    beta = unit * fit.beta
    beta[-1] += float(problem.head.center[0])
    loss = float(of.weight @ np.abs(t - z @ beta))
    best = dual_optimum(z, t, of.weight)
    assert loss == pytest.approx(best, rel=1e-10)
    assert unit * fit.objective == pytest.approx(loss, rel=1e-12)
    assert 0 <= fit.gap <= 1e-12 * fit.objective


@pytest.mark.parametrize(("n", "p"), [(2, 1), (5, 4), (7, 6), (30, 3), (40, 35), (300, 10)])
@pytest.mark.parametrize("kind", ["laplace", "whole numbers", "cauchy"])
def test_few_rows(n: int, p: int, kind: str) -> None:
    random = np.random.default_rng(n)
    z = np.column_stack([random.normal(size=(n, p - 1)), np.ones(n)])
    y = random.laplace(size=n)
    if kind == "whole numbers":
        z[:, :-1], y = random.integers(0, 3, size=(n, p - 1)), random.integers(0, 4, n).astype(float)
    elif kind == "cauchy":
        y = random.standard_cauchy(n)
    fit = interior_point(Deviations(z, y, np.ones(n), np.zeros(p)))
    best = least_absolute(z, y)[1]
    assert float(np.abs(y - z @ fit.beta).sum()) == pytest.approx(best, rel=1e-10, abs=1e-12)
    assert fit.objective - best <= fit.gap + 1e-12 * fit.objective


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("ridge", [0.0, 3.0])
def test_the_gap_bounds_the_error_of_a_path_cut_short(steps: int, ridge: float) -> None:
    random = np.random.default_rng(steps)
    z, weight = np.column_stack([random.normal(size=(200, 4)), np.ones(200)]), 1.0 + np.arange(200) % 3
    y = z @ np.ones(5) + random.standard_t(2, size=200)
    of = Deviations(z, y, weight, ridge * np.array([1.0, 1, 1, 1, 0]))
    short, whole = interior_point(of, max_steps=steps), interior_point(of)
    best = whole.objective if ridge else dual_optimum(z, y, weight)
    error = of.objective(short.beta) - best
    assert error <= short.gap + 1e-12 * best
    assert short.gap < of.objective(np.zeros(5))
    if steps < 3:
        assert error > 1e-9 * best


@pytest.mark.parametrize("amount", [1e-8, 1e-4, 1e-1])
def test_the_gap_counts_globbed_rows_on_the_wrong_side(amount: float) -> None:
    """Excess and reduced gap of a moved plane add up to no less than its distance from the optimum of HiGHS."""
    of = drawn("plain", 3)
    problem = problem_of("laplace_fixed", of, scale=1.0)
    whole = Globbing(problem)
    fit = whole.fit(of.weight, np.zeros(P + 1), np.zeros(P + 1))
    assert whole.guess is not None
    parts = whole._split(whole.guess, of.weight)
    reduced = Deviations(*parts.reduced(), np.zeros(P + 1))
    moved = fit.beta + amount * np.array([1.0, -1.0, 0.5, 1.0])
    _, excess = whole._check(parts, moved, of.weight)
    z, t = standardised(of)
    unit = float(problem.head.gain[0])
    loss = float(np.abs((t - float(problem.head.center[0])) / unit - z @ moved).sum())
    best = dual_optimum(z, t, of.weight) / unit
    assert loss == pytest.approx(reduced.objective(moved) + excess, rel=1e-12)
    assert loss - best > 1e-7 * amount
    assert loss - best <= reduced.objective(moved) - fit.objective + excess + fit.gap + 1e-11 * best


def test_the_same_rows_give_the_same_bits() -> None:
    of = drawn("plain", 0)
    one, other = (LeastAbsolute().solve(problem_of("laplace", of)) for _ in range(2))
    assert torch.equal(one.theta, other.theta)


def test_blocks_of_rows_give_the_same_fit() -> None:
    of = drawn("scale varies", 1)
    problem = problem_of("laplace", of)
    one, other = LeastAbsolute().solve(problem), LeastAbsolute().solve(replace(problem, block_rows=501))
    torch.testing.assert_close(one.theta, other.theta, rtol=1e-11, atol=1e-12)


PRIORS = [L2Prior(0.05), L1Prior(0.01), L1Prior(0.002), ElasticNetPrior(l2_scale=0.1, l1_scale=0.02)]


def negative_log_prior(prior: Prior, weights: Array) -> float:
    return float(prior(torch.tensor(weights).reshape(1, -1)))


@pytest.mark.parametrize("prior", PRIORS, ids=["l2", "l1", "l1 strong", "elastic net"])
def test_many_rows_under_a_prior(prior: Prior) -> None:
    """The reduction agrees with all rows at once, over a scale searched by Brent's method here."""
    of = drawn("plain", 5)
    problem = replace(problem_of("laplace", of), prior=prior)
    solution = LeastAbsolute().solve(problem)
    unit, (z, t) = float(problem.head.gain[0]), standardised(of)
    t = (t - float(problem.head.center[0])) / unit
    ridge = np.zeros(P + 1)
    ridge[:-1] = {L2Prior: 0.05**-2, ElasticNetPrior: 0.1**-2}.get(type(prior), 0.0)
    extra = np.eye(P + 1)[:-1] if prior.rate else np.zeros((0, P + 1))

    def profile(log_scale: float) -> float:
        scale = np.exp(log_scale)
        weight = np.append(np.ones(N), np.full(len(extra), scale * prior.rate))
        rows = Deviations(np.vstack([z, extra]), np.append(t, np.zeros(len(extra))), weight, scale * ridge)
        beta = interior_point(rows).beta
        nll = np.log(2 * unit * scale) + np.abs(t - z @ beta).mean() / scale
        return float(nll + negative_log_prior(prior, beta[:-1]) / N)

    grid = np.linspace(-4, 1, 26)
    start = grid[np.argmin([profile(s) for s in grid])]
    best = minimize_scalar(profile, bounds=(start - 0.2, start + 0.2), method="bounded", options={"xatol": 1e-9})
    assert solution.converged
    assert solution.is_global
    assert solution.residual < 1e-11
    assert solution.objective == pytest.approx(best.fun, abs=1e-11)
