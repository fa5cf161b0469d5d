"""Existence and global optima are shown or left open: every head, link and kind of bound, plugins and broken solvers.

The truth of each set is known by construction, or by a linear program written out here.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import Array
from exact_solving import configured
from rich.console import Console
from scipy.optimize import linprog, minimize
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, StudentT, constraints

from mlefw import inverse_link
from mlefw.baseline.base import Solution
from mlefw.baseline.existence import examine
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton
from mlefw.command.baseline import show
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.censored import CensoredHead
from mlefw.head.exponential import ExponentialHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.multitask import JointHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.head.weibull import WeibullHead
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.report.coefficient_table import baseline_content
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics
from mlefw.run.placement import place

NONE = float("nan")


def problem_of(head: Head, x: Array, y: Array, prior: Prior | None = None) -> Problem:
    """As training would see it; x (n, p) or (n,), y (n,) or (n, columns)."""
    features = torch.as_tensor(np.asarray(x, dtype=float)).reshape(len(x), -1)
    target = torch.as_tensor(np.asarray(y))
    target = target.long() if head.target in ("labels", "ordered") else target.double()
    ones = torch.ones(len(features), dtype=torch.float64)
    rows = Rows(features, target, ones, 0 * ones)
    points = head.points(target) if isinstance(head, CensoredHead) else target
    if isinstance(head, JointHead):
        head.set_column_units(points.mean(0).tolist(), points.std(0, unbiased=False).tolist())
    elif head.target == "numeric":
        head.set_units(float(points.mean()), float(points.std(unbiased=False)))
    mean, scale = feature_statistics(rows, True)
    head = place(head, solve_null(Problem.of(head, rows, mean, scale, NoPrior())))
    return Problem.of(head, rows, mean, scale, prior or NoPrior())


def solve(head: Head, x: Array, y: Array, prior: Prior | None = None) -> Solution:
    return LinearBaseline().solve(problem_of(head, x, y, prior))


RANDOM = np.random.default_rng(14)
N = 40
X = RANDOM.normal(size=(N, 2))
NOISE = RANDOM.normal(size=N)

# --- one outcome of two, whatever the link


def least_nll(link: str, x: Array, y: Array) -> float:
    """The least mean NLL, from the probabilities by their formulas."""
    z = np.column_stack([np.ones(len(x)), x])
    ones = {
        "logit": lambda eta: (-np.logaddexp(0, -eta), -np.logaddexp(0, eta)),
        "probit": lambda eta: (norm.logcdf(eta), norm.logcdf(-eta)),
        "cloglog": lambda eta: (np.log(-np.expm1(-np.exp(eta.clip(max=300)))), -np.exp(eta.clip(max=300))),
    }[link]

    def value(beta: Array) -> float:
        one, zero = ones(z @ beta)
        return float(-np.where(y == 1, one, zero).mean())

    best = minimize(value, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13, "maxfev": 5000})
    return float(minimize(value, best.x, method="BFGS", options={"gtol": 1e-10}).fun)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize("flip", [False, True])
def test_links_exist_exactly_where_a_linear_program_says_so(link: str, flip: bool) -> None:
    kinds = set()
    for seed in range(6):
        random = np.random.default_rng(seed)
        x = random.normal(size=(12, 2)).round(1)
        y = (x @ [1.0, 2.0] + (1.0 if seed % 2 else 0.0) * random.normal(size=12) > 0).astype(float)
        y[:2] = 0.0, 1.0
        y = 1 - y if flip else y
        margins = np.column_stack([np.ones(12), x]) * np.where(y == 1, 1.0, -1.0)[:, None]
        program = linprog(-margins.sum(0), A_ub=-margins, b_ub=np.zeros(12), bounds=[(-1, 1)] * 3)
        solution = solve(BernoulliHead(link), x, y)
        assert solution.exists is bool(-program.fun < 1e-7), seed
        kinds.add(solution.exists)
        if solution.exists:
            assert solution.converged
            assert solution.is_global
            assert solution.objective == pytest.approx(least_nll(link, x, y), abs=1e-8)
    assert kinds == {True, False}


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_separated_labels_have_the_infimum_of_those_that_are_left(link: str) -> None:
    x = np.concatenate([-1 - RANDOM.random(10), [0.0, 0.0, 0.0, 0.0], 1 + RANDOM.random(10)])
    y = np.concatenate([np.zeros(10), [0.0, 1.0, 0.0, 1.0], np.ones(10)])
    solution = solve(BernoulliHead(link), x, y)
    assert solution.exists is False
    # The NLL of a cauchit is not convex: of the rows that are left it may be lower along another way to infinity.
    left = None if link == "cauchit" else pytest.approx(4 / 24 * math.log(2), abs=1e-9)
    assert solution.infimum == left
    assert solve(BernoulliHead(link), x, y, L2Prior(1.0)).exists
    # Where no row is left, no way leads lower.
    solution = solve(BernoulliHead(link), x[x != 0], y[x != 0])
    assert solution.exists is False
    assert solution.infimum == 0.0


# --- numbers of which bounds are known

COMPONENTS: dict[str, Callable[[], Head]] = {
    "gaussian": GaussianHead,
    "gaussian given": lambda: GaussianHead(scale=0.7),
    "laplace": LaplaceHead,
    "laplace given": lambda: LaplaceHead(scale=0.7),
    "lognormal": LognormalHead,
    "lognormal given": lambda: LognormalHead(scale=0.7),
    "weibull": WeibullHead,
    "weibull given": lambda: WeibullHead(shape=1.5),
    "exponential": ExponentialHead,
}
POSITIVE = ("lognormal", "weibull", "exponential")
GIVEN = ("gaussian given", "laplace given", "lognormal given", "weibull given", "exponential")


def latent(name: str, location: Array) -> Array:
    return np.exp(location) if name.startswith(POSITIVE) else location


def nothing(size: int) -> Array:
    return np.full(size, NONE)


def bounds(name: str, pattern: str) -> tuple[Array, Array, Array]:
    """Features, lower and upper bounds; NaN where there is none."""
    y = latent(name, 0.5 * X[:, 0] + 0.4 * NOISE)
    step = 0.5 * np.floor(2 * (0.5 * X[:, 0] + 0.4 * NOISE))
    open_above = np.arange(N) % 3 == 0
    group = (np.arange(N) % 4 == 0).astype(float)
    if pattern == "mixed":
        return X, np.where(open_above, 0.9 * y - 0.1 * abs(y), y), np.where(open_above, NONE, y)
    if pattern == "intervals":
        return X, latent(name, step), latent(name, step + 0.5)
    if pattern == "all above":
        return X, y, nothing(N)
    if pattern == "all below":
        return X, nothing(N), y
    if pattern == "a group above":
        return np.column_stack([X, group]), y, np.where(group == 1, NONE, y)
    if pattern == "a group below":
        return np.column_stack([X, group]), np.where(group == 1, NONE, y), y
    side = np.concatenate([-1 - np.arange(20) / 20, 1 + np.arange(20) / 20])
    low, high = latent(name, np.array([0.0, 1.0]))
    if pattern == "separated":
        return side, np.where(side > 0, high, NONE), np.where(side > 0, NONE, low)
    assert pattern == "on a line"
    line = latent(name, 1 + X[:, 0])
    return X, np.where(open_above, latent(name, X[:, 0]), line), np.where(open_above, NONE, line)


@pytest.mark.parametrize("pattern", ["mixed", "intervals"])
@pytest.mark.parametrize("name", COMPONENTS)
def test_bounds_that_hold_an_estimate(name: str, pattern: str) -> None:
    x, low, high = bounds(name, pattern)
    solution = solve(CensoredHead(COMPONENTS[name]()), x, np.column_stack([low, high]))
    assert solution.exists
    assert solution.converged
    assert solution.is_global


@pytest.mark.parametrize("pattern", ["all above", "all below", "a group above", "a group below", "separated"])
@pytest.mark.parametrize("name", COMPONENTS)
def test_bounds_that_let_an_estimate_go(name: str, pattern: str) -> None:
    x, low, high = bounds(name, pattern)
    solution = solve(CensoredHead(COMPONENTS[name]()), x, np.column_stack([low, high]))
    assert solution.exists is False
    assert solution.reason
    if not pattern.startswith("a group"):
        assert solution.infimum == pytest.approx(0, abs=1e-12)
    elif solution.infimum is not None:
        rest = x[:, -1] == 0
        others = solve(CensoredHead(COMPONENTS[name]()), x[rest, :-1], np.column_stack([low, high])[rest])
        assert solution.infimum == pytest.approx(rest.mean() * others.objective, abs=1e-7)


@pytest.mark.parametrize("name", COMPONENTS)
def test_exact_numbers_on_a_line_within_all_bounds(name: str) -> None:
    x, low, high = bounds(name, "on a line")
    solution = solve(CensoredHead(COMPONENTS[name]()), x, np.column_stack([low, high]))
    assert solution.exists is (name in GIVEN)
    assert (name in GIVEN) or "unbounded" in solution.reason


# --- perfect fits of every family with a dispersion

LINE = 1 + X @ np.array([1.0, 2.0])
LINKS: dict[str, Callable[[Array], Array]] = {
    "gaussian": lambda eta: eta,
    "heteroscedastic": lambda eta: eta,
    "laplace": lambda eta: eta,
    "huber": lambda eta: eta,
    "student_t": lambda eta: eta,
    "gamma": np.exp,
    "lognormal": np.exp,
    "weibull": np.exp,
    "beta": lambda eta: 1 / (1 + np.exp(-eta / 4)),
}


@pytest.mark.parametrize("prior", [None, L2Prior(1.0)], ids=["flat", "l2"])
@pytest.mark.parametrize("name", LINKS)
def test_perfect_fits_have_no_estimate_and_noise_gives_them_one(name: str, prior: Prior | None) -> None:
    perfect = solve(configured(name), X, LINKS[name](LINE), prior)
    assert perfect.exists is False
    assert "fits every row exactly" in perfect.reason
    # It is seen before a descent follows the scale towards zero.
    assert perfect.num_steps < 30
    # Noise that is normal sends a learnt df to infinity.
    tails = {"df": 4.0} if name == "student_t" else {}
    noisy = solve(configured(name, **tails), X, LINKS[name](LINE + 0.3 * NOISE), prior)
    assert noisy.exists
    assert noisy.converged


@pytest.mark.parametrize("name", LINKS)
def test_a_constant_target(name: str) -> None:
    problem = problem_of(configured(name), X, LINKS[name](np.ones(N)))
    solution = LinearBaseline().solve(problem)
    assert solution.exists is False
    assert "the target is constant" in solution.reason
    assert solution.num_steps < 30
    # Training starts at the null model: none of its parameters is out of reach.
    assert float(problem.head.center.abs().max()) < 20


VARYING: list[tuple[Callable[[], Head], Callable[[Array], Array]]] = [
    (lambda: GaussianHead(scale="predicted"), lambda eta: eta),
    (lambda: LaplaceHead(scale="predicted"), lambda eta: eta),
    (lambda: GammaHead(dispersion="predicted"), np.exp),
    (lambda: WeibullHead(shape="predicted"), np.exp),
    (lambda: LognormalHead(scale="predicted"), np.exp),
]


@pytest.mark.parametrize(("head", "link"), VARYING)
def test_a_predicted_dispersion_collapses_onto_a_group_that_is_fitted_exactly(
    head: Callable[[], Head], link: Callable[[Array], Array]
) -> None:
    group = (np.arange(N) < 3).astype(float)
    y = link(np.where(group == 1, LINE, LINE + NOISE))
    solution = solve(head(), np.column_stack([X, group]), y)
    assert solution.exists is False
    assert "3 of 40 rows are fitted exactly" in solution.reason


@pytest.mark.parametrize(
    ("off", "df", "exists"), [(15, "shared", False), (15, 1.2, False), (15, 2.0, True), (28, 2.0, True)]
)
def test_students_t_may_pass_through_too_many_rows(off: int, df: float | str, exists: bool) -> None:
    """It is unbounded where more than df / (1 + df) of the rows lie on a plane (Fernández & Steel, 1999)."""
    y = np.where(np.arange(N) < off, LINE + 2 * NOISE, LINE)
    assert solve(configured("student_t", df=df), X, y).exists is exists


@pytest.mark.parametrize("fit", ["combination", "target", "none"])
def test_a_covariance_that_is_singular(fit: str) -> None:
    y = np.column_stack([NOISE, np.roll(NOISE, 1) + X[:, 0]])
    if fit == "combination":
        y[:, 1] = 3 * y[:, 0] + LINE
    if fit == "target":
        y[:, 1] = LINE
    solution = solve(MultivariateGaussianHead(["a", "b"]), X, y)
    assert solution.exists is (fit == "none")
    assert bool(solution.is_global) is (fit == "none")


# --- counts

COUNTS = np.random.default_rng(5).negative_binomial(2, 0.4, size=N).astype(float)


@pytest.mark.parametrize("head", ["poisson", "negative_binomial", "zero_inflated_poisson"])
def test_counts_with_one_optimum_are_called_global(head: str) -> None:
    y = np.where(np.arange(N) % 5 == 0, 0.0, COUNTS)
    solution = solve(configured(head), X, y)
    assert solution.exists
    assert solution.is_global
    assert (solution.shown_by is None) == (head == "poisson")


@pytest.mark.parametrize("head", ["negative_binomial", "zero_inflated_poisson", "zero_inflated_negative_binomial"])
@pytest.mark.parametrize("kind", ["zeros", "no zeros", "a group of zeros"])
def test_counts_without_an_estimate(head: str, kind: str) -> None:
    group = (np.arange(N) % 4 == 0).astype(float)
    y = {"zeros": 0 * COUNTS, "no zeros": 1 + COUNTS, "a group of zeros": np.where(group == 1, 0.0, COUNTS)}[kind]
    if kind == "no zeros" and head == "negative_binomial":
        y = np.full(N, 3.0)
    solution = solve(configured(head), np.column_stack([X, group]), y)
    assert solution.exists is False
    if kind == "zeros":
        assert solution.infimum == pytest.approx(0, abs=1e-12)


# --- densities with a kink


@pytest.mark.parametrize("rows", [5, 7, 9, 40])
@pytest.mark.parametrize("prior", [L1Prior(0.4), L2Prior(0.4), ElasticNetPrior(0.4, 0.4)], ids=["l1", "l2", "both"])
def test_a_given_laplace_scale_exists_for_every_number_of_rows(rows: int, prior: Prior) -> None:
    solution = solve(LaplaceHead(scale=0.7), X[:rows, :1], LINE[:rows], prior)
    assert solution.exists
    assert solution.converged
    assert solution.is_global


def of_program(x: Array, low: Array, high: Array, scale: float, rate: float) -> float:
    """Censored least absolute deviations, smoothed ever less, by BFGS: mean NLL, no constant of the prior."""
    z = np.column_stack([x, np.ones(len(x))])
    exact = low == high

    def value(beta: Array, width: float) -> float:
        u = (np.where(np.isnan(low), high, low) - z @ beta) / scale
        tail = np.where(u >= 0, u + math.log(2), -np.log1p(-0.5 * np.exp(np.minimum(u, 0))))
        near = np.sqrt(u**2 + width**2) + math.log(2 * scale)
        weights = np.sqrt(beta[:-1] ** 2 + width**2)
        return float(np.where(exact, near, tail).mean() + rate * weights.sum() / len(x))

    beta = np.zeros(z.shape[1])
    for width in np.logspace(-1, -9, 33):
        beta = minimize(value, beta, args=(width,), method="BFGS", options={"gtol": 1e-11}).x
    return value(beta, 0.0)


@pytest.mark.parametrize("scale", [0.2, 0.7])
def test_bounds_around_a_given_laplace_scale(scale: float) -> None:
    x, low, high = bounds("laplace", "mixed")
    prior, spread = L1Prior(0.5), X.std(0)
    for of, rate in ((None, 0.0), (prior, 2.0)):
        solution = solve(CensoredHead(LaplaceHead(scale=scale)), x, np.column_stack([low, high]), of)
        points = np.where(np.isnan(high), low, high)
        # The prior is on weights in units of the target for standardised features.
        z, unit = (x - x.mean(0)) / spread, points.std()
        expected = of_program(z, low, high, scale, rate / unit)
        constant = 0.0 if of is None else 2 * math.log(2 * 0.5) / N
        assert solution.exists
        assert solution.is_global
        assert solution.objective - constant == pytest.approx(expected, abs=1e-7)
        assert solution.objective - constant <= expected + 1e-10


@pytest.mark.parametrize("delta", [0.1, 0.01, 1e-4])
@pytest.mark.parametrize("prior", [None, L1Prior(0.3), L2Prior(0.3)], ids=["flat", "l1", "l2"])
def test_huber_with_a_small_delta(delta: float, prior: Prior | None) -> None:
    solution = solve(HuberHead(scale=0.05, delta=delta), X, LINE + NOISE, prior)
    assert solution.exists
    assert solution.converged
    assert solution.is_global
    if prior is None:
        # Huber's loss is a quadratic program; its dual maximises a concave function of one bounded value for each row.
        z = np.column_stack([np.ones(N), X])
        residual = np.abs(LINE + NOISE - z @ np.linalg.lstsq(z, LINE + NOISE, rcond=None)[0]) / 0.05
        rough = np.where(residual <= delta, 0.5 * residual**2, delta * residual - 0.5 * delta**2).mean()
        huber = HuberHead(scale=0.05, delta=delta).double()
        constant = float(huber.nll(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
        assert solution.objective <= constant + rough
        line = sm.QuantReg(LINE + NOISE, z).fit(q=0.5, max_iter=5000, p_tol=1e-12).params
        median = delta * np.abs(LINE + NOISE - z @ line).mean() / 0.05
        # Between the absolute deviations and those less what rounding takes off at most.
        assert constant + median - 0.5 * delta**2 - 1e-9 <= solution.objective <= constant + median + 1e-9


# --- plugins that claim nothing, or too much


class CauchyPrior(Prior):
    """Heavy tails: not convex."""

    def __init__(self, scale: float, claims: bool) -> None:
        super().__init__()
        self.scale, self.convex = scale, claims

    def forward(self, w: Tensor) -> Tensor:
        return torch.log1p((w / self.scale).square()).sum() + w.numel() * math.log(math.pi * self.scale)


class Heavy(FactorizedHead):
    """Student's t with a given scale: not convex in its location."""

    inverse_links = {"loc": inverse_link.identity}  # noqa: RUF012
    support = constraints.real

    def __init__(self, claims: bool, unimodal: bool = False) -> None:
        super().__init__(loc="predicted")
        self.convex, self.unimodal = claims, unimodal

    def build(self, loc: Tensor) -> StudentT:  # type: ignore[override]
        return StudentT(2.0, loc, 0.1, validate_args=False)


class Plain(FactorizedHead):
    """A Gaussian of unit scale."""

    inverse_links = {"loc": inverse_link.identity}  # noqa: RUF012
    support = constraints.real

    def __init__(self, claims: bool) -> None:
        super().__init__(loc="predicted")
        self.convex = claims

    def build(self, loc: Tensor) -> Normal:  # type: ignore[override]
        return Normal(loc, 1.0, validate_args=False)


class Sloped(GaussianHead):
    """A subclass whose density is another one."""

    def build(self, loc: Tensor, scale: Tensor) -> Normal:  # type: ignore[override]
        return Normal(loc, scale * (1 + loc.square()), validate_args=False)


def test_a_prior_claims_nothing_by_default() -> None:
    assert not Prior.convex


@pytest.mark.parametrize("claims", [False, True])
def test_a_prior_that_is_not_convex_makes_nothing_global(claims: bool) -> None:
    assert solve(GaussianHead(scale=1.0), X, LINE, CauchyPrior(0.05, claims)).is_global is None
    assert solve(BernoulliHead(), X, (NOISE > 0).astype(float), CauchyPrior(0.05, claims)).is_global is None


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("unimodal", [False, True])
def test_a_head_that_is_not_convex_is_not_called_global(claims: bool, unimodal: bool) -> None:
    y = np.where(np.arange(N) % 3 == 0, LINE + 5, LINE) + 0.1 * NOISE
    assert solve(Heavy(claims, unimodal), X, y).is_global is None


def test_a_head_that_is_convex_is_global_where_it_says_so() -> None:
    assert solve(Plain(True), X, LINE + NOISE).is_global
    silent = solve(Plain(False), X, LINE + NOISE)
    assert silent.is_global is None
    assert silent.exists


def test_a_subclass_of_our_head_is_not_solved_as_ours() -> None:
    solution = solve(Sloped(), X, LINE + NOISE)
    assert solution.is_global is None
    assert solution.solver != "least squares"


def test_what_is_not_shown_is_null_in_the_file_with_a_reason() -> None:
    stopped = Newton(max_steps=2).solve(problem_of(configured("student_t"), X, LINE + NOISE))
    content = baseline_content(examine(stopped), ["a", "b"], None, "default")
    assert content["exists"] is None
    assert content["is_global"] is None
    assert content["reason"] == "no stationary point was found"
    stream = io.StringIO()
    show(content | {"head": "student_t", "prior": "none", "target": "y"}, Console(file=stream, width=200))
    assert "NOT certified: existence not shown: no stationary point was found" in stream.getvalue()


# --- solvers that fail say so

AWKWARD: dict[str, tuple[Array, Array]] = {
    "normal": (X, LINE + NOISE),
    "constant": (X, np.ones(N)),
    "two rows": (X[:2], np.array([1.0, 2.0])),
    "a constant feature": (np.column_stack([X[:, 0], np.ones(N)]), LINE + NOISE),
    "fewer rows than columns": (RANDOM.normal(size=(5, 8)), NOISE[:5]),
    "the same column twice": (X[:, [0, 0]], LINE + NOISE),
    "huge": (1e12 * X, 1e15 * (LINE + NOISE)),
    "tiny": (1e-12 * X, 1e-15 * (LINE + NOISE)),
}


@pytest.mark.slow
@pytest.mark.parametrize("data", AWKWARD)
@pytest.mark.parametrize(
    "prior", [None, L1Prior(0.5), L2Prior(0.5), ElasticNetPrior(0.5, 0.5)], ids=["flat", "l1", "l2", "both"]
)
@pytest.mark.parametrize("name", [*LINKS, "exponential", "poisson", "negative_binomial", "bernoulli"])
def test_no_solver_breaks_down_unsaid(name: str, prior: Prior | None, data: str) -> None:
    x, raw = AWKWARD[data]
    unit = (raw - raw.mean()) / (raw.std() or 1.0)
    y = LINKS[name](raw) if name in LINKS and LINKS[name](np.zeros(1)) == 0 else unit
    if name in ("gamma", "lognormal", "weibull", "exponential"):
        y = np.exp(unit)
    elif name == "beta":
        y = 1 / (1 + np.exp(-unit))
    elif name in ("poisson", "negative_binomial"):
        y = np.floor(np.exp(unit))
    elif name == "bernoulli":
        y = (unit > 0).astype(float)
    solution = solve(configured(name), x, y, prior)
    assert solution.exists in (True, False, None)
    if solution.exists is not True or not solution.converged:
        assert solution.reason or solution.residual > 0
    if solution.exists:
        assert solution.is_global in (True, None)


@pytest.mark.parametrize("prior", [L1Prior(0.5), ElasticNetPrior(0.5, 0.5)], ids=["l1", "both"])
@pytest.mark.parametrize("name", LINKS)
def test_a_descent_towards_a_perfect_fit_ends_at_numbers(name: str, prior: Prior) -> None:
    """Whatever it overflows on: the solver alone, which no test for a perfect fit goes before."""
    found = ProximalNewton().solve(problem_of(configured(name), X, LINKS[name](np.ones(N)), prior))
    assert bool(torch.isfinite(found.theta).all())


@pytest.mark.parametrize("prior", [L1Prior(1.0), ElasticNetPrior(1.0, 1.0)], ids=["l1", "both"])
def test_students_t_on_normal_numbers_under_a_kinked_prior(prior: Prior) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3))
    solution = solve(configured("student_t"), x, x[:, 0] + random.normal(size=120), prior)
    assert solution.exists is False or solution.converged or solution.reason
