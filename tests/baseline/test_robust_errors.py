"""Errors that are robust to a wrong noise model, to leverage, and to dependence between rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import statsmodels.api as sm
import torch
from exact_oracles import Sample, data, sample, varied
from exact_solving import configured, problem_of, problem_with, solve
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from mlefw.baseline import score_products
from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.linear import LinearBaseline, StandardErrors
from mlefw.baseline.newton import Newton
from mlefw.head.base import Head
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.report.coefficient_table import baseline_content
from mlefw.rows.dependence import Dependence

CLUSTERED: tuple[StandardErrors, ...] = ("cluster", "hac")
LEVERAGED: tuple[StandardErrors, ...] = ("hc2", "hc3", "hc4")


def errors(solution: Solution, kind: StandardErrors, dependence: Dependence | None = None) -> tuple[np.ndarray, str]:
    """The standard errors of the first table of coefficients, intercept first, and how they were computed."""
    names = [f"x{j}" for j in range(solution.problem.rows.x.shape[1])]
    content = baseline_content(solution, names, None, kind, dependence=dependence)
    table = next(iter(content["coefficients"].values()))
    return np.array([row["std_error"] for row in table]), content["standard_errors"]


def found(solution: Solution, kind: StandardErrors, dependence: Dependence | None = None) -> Covariance:
    """The covariance, which there has to be."""
    matrix = covariance(solution, kind, dependence)
    assert isinstance(matrix, Covariance), matrix
    return matrix


def dependence(*codes: np.ndarray, time: np.ndarray | None = None, lag: int | None = None) -> Dependence:
    """Clusters named a, b and times."""
    clusters = tuple(torch.from_numpy(code) for code in codes)
    return Dependence(clusters, tuple("ab"[: len(codes)]), None if time is None else torch.from_numpy(time), lag)


# --- published values

SCHOOLS = """275 6247 821 10851 339 7374 275 6183 387 8850 452 8001 531 8914 424 8604 316 7505 265 6700 403 8380 304
6813 437 8745 345 7696 431 7873 355 8001 260 6615 316 6640 327 6333 427 8306 427 8063 466 8442 477 7847 259 5736 274
7342 433 7051 294 7391 359 9032 279 7277 423 8818 388 6505 447 8267 335 6607 311 7478 322 7812 320 6951 397 7839 412
7733 342 7526 315 6242 321 6841 268 6489 315 7697 417 6622 353 6541 356 7624 415 8450 428 10022 320 6456 500 9096"""
"""Expenditure and income of the public schools of 50 states (Greene, 1993), in which Alaska has a leverage of 0.65."""


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("default", (327.29, 828.99, 519.08)),
        ("hc0", (460.89, 1243.04, 829.99)),
        ("hc3", (1095.00, 2975.41, 1995.24)),
        ("hc4", (3008.01, 8183.19, 5488.93)),
    ],
)
def test_published_errors_of_school_expenditure(kind: StandardErrors, published: tuple[float, ...]) -> None:
    """Zeileis (2004), Econometric computing with HC and HAC covariance matrix estimators."""
    table = np.array(SCHOOLS.split(), float).reshape(-1, 2)
    income = table[:, 1] / 1e4
    solution = solve("gaussian", sample(np.column_stack([income, income**2]), table[:, 0]))
    np.testing.assert_allclose(errors(solution, kind)[0], published, atol=0.006)


# --- least squares and generalised linear models against statsmodels


@pytest.mark.parametrize("variant", ["plain", "weight", "weight and offset"])
@pytest.mark.parametrize("name", ["stackloss", "scotland", "engel"])
def test_least_squares(name: str, variant: str) -> None:
    of = varied(data(name), variant)
    x, y, offset = of.repeated()
    fit = sm.OLS(y - offset, sm.add_constant(x)).fit(method="qr")
    solution = solve("gaussian", of)
    for kind in ("hc2", "hc3"):
        np.testing.assert_allclose(errors(solution, kind)[0], getattr(fit, f"{kind.upper()}_se"), rtol=1e-7)
    left = 1 - fit.get_influence().hat_matrix_diag
    power = np.minimum(4, (1 - left) * len(y) / (x.shape[1] + 1))
    bread = np.linalg.pinv(sm.add_constant(x))
    expected = np.sqrt(np.diag(bread * fit.resid**2 / left**power @ bread.T))
    np.testing.assert_allclose(errors(solution, "hc4")[0], expected, rtol=1e-6)
    first, second = np.arange(len(of.y)) % 7, np.arange(len(of.y)) // 5
    codes = [np.repeat(code, of.weight.astype(int)) for code in (first, second)]
    alone, words = errors(solution, "cluster", dependence(first))
    clustered = fit.get_robustcov_results("cluster", groups=codes[0])
    np.testing.assert_allclose(alone, clustered.bse, rtol=1e-7)
    assert words.startswith("sandwich (cluster: 7 of a), t quantiles with 6 df")
    # The intersection has no factor, in statsmodels that of its own number.
    _, by_first, by_second = cov_cluster_2groups(fit, *codes, use_correction=True)
    between = cov_cluster_2groups(fit, *codes, use_correction=False)
    both = by_first + by_second - (between[1] + between[2] - between[0])
    np.testing.assert_allclose(
        errors(solution, "cluster", dependence(first, second))[0] ** 2, np.diag(both), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("lag", [None, 0, 1, 5])
def test_newey_west(lag: int | None) -> None:
    of = data("longley")
    time = np.random.default_rng(0).permutation(len(of.y)).astype(float)
    order = np.argsort(time)
    fit = sm.OLS(of.y[order], sm.add_constant(of.x[order])).fit(method="qr")
    steps = int(4 * (len(of.y) / 100) ** (2 / 9)) if lag is None else lag
    expected = fit.get_robustcov_results("HAC", maxlags=steps).bse
    ours, words = errors(solve("gaussian", of), "hac", dependence(time=time, lag=lag))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert words == f"sandwich (HAC: Bartlett, lag {steps})"


def test_hc3_of_least_squares_is_the_jackknife() -> None:
    of = data("stackloss")
    design = sm.add_constant(of.x)
    whole = np.linalg.lstsq(design, of.y, rcond=None)[0]
    others = [np.linalg.lstsq(np.delete(design, i, 0), np.delete(of.y, i), rcond=None)[0] for i in range(len(of.y))]
    jackknife = sum(np.outer(one - whole, one - whole) for one in others)
    np.testing.assert_allclose(errors(solve("gaussian", of), "hc3")[0], np.sqrt(np.diag(jackknife)), rtol=1e-9)


@pytest.mark.parametrize(("name", "head"), [("spector", "bernoulli"), ("cpunish", "poisson")])
def test_canonical_links(name: str, head: str) -> None:
    of = data(name)
    family = sm.families.Binomial() if head == "bernoulli" else sm.families.Poisson()
    model = sm.GLM(of.y, sm.add_constant(of.x), family)
    fit = model.fit(tol=1e-14, maxiter=200)
    solution = solve(head, of)
    bread, design = fit.normalized_cov_params, model.exog
    variance = fit.mu * (1 - fit.mu) if head == "bernoulli" else fit.mu
    hat = variance * ((design @ bread) * design).sum(1)
    score = (of.y - fit.mu)[:, None] * design
    for kind, power in (("hc2", 0.5), ("hc3", 1.0)):
        inner = score / (1 - hat)[:, None] ** power
        np.testing.assert_allclose(
            errors(solution, kind)[0], np.sqrt(np.diag(bread @ inner.T @ inner @ bread)), rtol=1e-6
        )
    group = np.arange(len(of.y)) % 5
    clustered = model.fit(tol=1e-14, maxiter=200, cov_type="cluster", cov_kwds={"groups": group})
    # For likelihoods the factor is G / (G − 1) alone; statsmodels has that of least squares.
    small = (len(of.y) - 1) / fit.df_resid
    np.testing.assert_allclose(errors(solution, "cluster", dependence(group))[0], clustered.bse / small**0.5, rtol=1e-6)


@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
def test_pearson_dispersion(variant: str) -> None:
    """Gamma as in R's `glm`, and quasi-Poisson; a Gaussian is its own default."""
    families = {"gamma": sm.families.Gamma(sm.families.links.Log()), "poisson": sm.families.Poisson()}
    for head, family, name in (("gamma", families["gamma"], "scotland"), ("poisson", families["poisson"], "cpunish")):
        of = data(name)
        weight = 1.0 + np.arange(len(of.y)) % 3 if variant != "plain" else of.weight
        offset = 0.3 * np.sin(np.arange(len(of.y))) if variant != "plain" else of.offset
        of = replace(of, weight=weight, offset=offset)
        x, y, moved = of.repeated()
        fit = sm.GLM(y, sm.add_constant(x), family, offset=moved).fit(tol=1e-14, maxiter=200, scale="X2")
        solution = solve(head, of)
        ours, words = errors(solution, "pearson")
        np.testing.assert_allclose(ours, fit.bse, rtol=1e-6)
        assert words.endswith("times that of the model, t quantiles")
        assert found(solution, "pearson").df == fit.df_resid
    plain = solve("gaussian", data("stackloss"))
    np.testing.assert_allclose(errors(plain, "pearson")[0], errors(plain, "default")[0], rtol=1e-12)


# --- heads with several columns against derivatives of each row in theta


def points(head: str) -> Sample:
    """Sixty rows on which the likelihood of the head has a maximum."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 2))
    line = 0.4 * x[:, 0] - 0.3 * x[:, 1]
    drawn: dict[str, Callable[[], np.ndarray]] = {
        "heteroscedastic": lambda: line + np.exp(0.3 * x[:, 0]) * rng.normal(size=60),
        "beta": lambda: rng.beta(4 / (1 + np.exp(-line)), 4 / (1 + np.exp(line))),
        "categorical": lambda: rng.integers(0, 3, 60),
        "zero_inflated_negative_binomial": lambda: (
            rng.negative_binomial(2, 2 / (2 + np.exp(1.5 + line))) * (rng.random(60) > 0.3)
        ),
        "ordinal": lambda: np.digitize(line + rng.logistic(size=60), [-1.0, 0.5]),
        "weibull": lambda: np.exp(line) * rng.weibull(1.7, 60),
    }
    return sample(x, drawn[head]().astype(float))


HEADS: dict[str, Callable[[], Head]] = {
    "heteroscedastic": lambda: GaussianHead(scale="predicted"),
    "beta": lambda: configured("beta", precision="predicted"),
    "categorical": lambda: CategoricalHead(3),
    "zero_inflated_negative_binomial": lambda: configured("zero_inflated_negative_binomial"),
    "ordinal": lambda: configured("ordinal", num_classes=3),
    "weibull": lambda: configured("weibull"),
}


def solved(head: str, of: Sample) -> Solution:
    """A stationary point from one start, whatever is shown of its existence."""
    problem = problem_with(HEADS[head](), of)
    solution = Newton(100).solve_from(problem, torch.zeros(problem.size, dtype=torch.float64))
    assert solution.converged
    return solution


def by_autograd(solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, P) and Hessians (n, P, P) of rows in the free entries of theta, from the likelihood alone."""
    problem, head = solution.problem, solution.problem.head
    free, width, num_rows = problem.free, problem.num_active + 1, problem.rows.num_rows
    # A theta of its own for each row, so that derivatives of the sum are those of rows.
    own = solution.theta.repeat(num_rows, 1).requires_grad_()
    table = own[:, : head.eta_dim * width].view(num_rows, head.eta_dim, width)
    predicted = (table @ problem.design(problem.rows).unsqueeze(2)).squeeze(2)
    eta = head.center + head.gain * torch.cat([predicted, own[:, head.eta_dim * width :]], 1)
    (score,) = torch.autograd.grad(head.nll_complete(eta, problem.rows.y).sum(), own, create_graph=True)
    hessian = [torch.autograd.grad(column.sum(), own, retain_graph=True)[0] for column in score.T]
    return score.detach()[:, free].numpy(), torch.stack(hessian, 1)[:, free][:, :, free].numpy()


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_several_columns(head: str) -> None:
    of = points(head)
    solution = solved(head, of)
    score, hessian = by_autograd(solution)
    free = solution.problem.free.numpy()
    a, b = np.arange(60) % 11, np.arange(60) // 6
    depends = dependence(a, b, time=-np.arange(60.0), lag=2)
    bread = np.linalg.inv(hessian.sum(0))

    def expect(kind: StandardErrors, meat: np.ndarray, of_rows: Dependence = depends) -> None:
        ours = found(solution, kind, of_rows).matrix.numpy()[np.ix_(free, free)]
        np.testing.assert_allclose(ours, bread @ meat @ bread, rtol=1e-6, atol=1e-8 * np.abs(ours).max())
        np.testing.assert_allclose(np.diag(ours), np.diag(bread @ meat @ bread), rtol=1e-6)

    def in_clusters(code: np.ndarray) -> np.ndarray:
        sums = np.stack([score[code == g].sum(0) for g in np.unique(code)])
        return sums.T @ sums

    expect("hc0", score.T @ score)
    expect("cluster", 11 / 10 * in_clusters(a), dependence(a))
    expect("cluster", 11 / 10 * in_clusters(a) + 10 / 9 * in_clusters(b) - in_clusters(100 * a + b))
    lagged = [score[lag:].T @ score[: 60 - lag] for lag in (0, 1, 2)]
    expect("hac", lagged[0] + sum((1 - lag / 3) * (lagged[lag] + lagged[lag].T) for lag in (1, 2)))
    if solution.problem.head.shared_dim:
        # Scores of the shared parameters stay as they are, and the leverage is that of the coefficients given them.
        own = np.arange(free.sum()) < free.sum() - solution.problem.head.shared_dim
        hessian = np.where(own[:, None] & own, hessian, 0)
        given = np.linalg.inv(hessian.sum(0)[np.ix_(own, own)])
    else:
        own, given = np.ones(len(bread), bool), bread
    left = [np.eye(len(given)) - one[np.ix_(own, own)] @ given for one in hessian]
    for kind in ("hc2", "hc3"):
        moved = score.copy()
        for i, one in enumerate(left):
            root = scipy.linalg.sqrtm(one).real if kind == "hc2" else one
            moved[i, own] = np.linalg.solve(root, score[i, own])
        expect(kind, moved.T @ moved)
    if head == "categorical":
        return
    leverage = np.array([len(given) - np.trace(one) for one in left])
    power = np.minimum(4, np.maximum(leverage * 60 / own.sum(), 0))
    moved = score.copy()
    for i, one in enumerate(left):
        moved[i, own] = scipy.linalg.fractional_matrix_power(one, -power[i] / 2).real @ score[i, own]
    expect("hc4", moved.T @ moved)


# --- what must not matter


@pytest.mark.parametrize("head", ["gaussian", "heteroscedastic", "gamma", "bernoulli"])
def test_a_weight_of_two_is_the_row_twice(head: str) -> None:
    of = data("spector" if head == "bernoulli" else "engel")
    weight = 1.0 + np.arange(len(of.y)) % 3
    code = np.arange(len(of.y)) % 6
    x, y, _ = of.repeated()
    times = weight.astype(int)
    whole = sample(np.repeat(x, times, 0), np.repeat(y, times))
    weighted, repeated = solve(head, replace(of, weight=weight)), solve(head, whole)
    kinds: tuple[StandardErrors, ...] = ("hc1", *LEVERAGED, "cluster", "expected")
    for kind in (*kinds, "pearson") if head != "heteroscedastic" else kinds:
        one = found(weighted, kind, dependence(code))
        other = found(repeated, kind, dependence(np.repeat(code, times)))
        torch.testing.assert_close(one.matrix, other.matrix, rtol=1e-5, atol=1e-9)
        assert one.df == other.df


def test_order_and_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    of = data("engel")
    rng = np.random.default_rng(1)
    order = rng.permutation(len(of.y))
    code, time = rng.integers(0, 40, len(of.y)), np.arange(len(of.y)) * 2.0
    solution = solve("heteroscedastic", of)
    before = {kind: found(solution, kind, dependence(code, time=time, lag=30)).matrix for kind in CLUSTERED}
    monkeypatch.setattr(score_products, "_BLOCK", 40)
    shuffled = replace(solution.problem, rows=solution.problem.rows.take(torch.from_numpy(order)), block_rows=7)
    moved = replace(solution, problem=shuffled)
    for kind in CLUSTERED:
        after = found(moved, kind, dependence(code[order], time=time[order], lag=30)).matrix
        torch.testing.assert_close(after, before[kind], rtol=1e-9, atol=1e-14)
    for kind in LEVERAGED:
        torch.testing.assert_close(found(moved, kind).matrix, found(solution, kind).matrix, rtol=1e-9, atol=1e-14)


def test_clusters_of_one_row_and_a_lag_of_zero_are_hc0() -> None:
    solution = solve("poisson", data("cpunish"))
    count = solution.problem.rows.num_rows
    each = dependence(np.arange(count)[::-1].copy(), time=np.arange(count), lag=0)
    plain = found(solution, "hc0").matrix
    clustered = found(solution, "cluster", each)
    torch.testing.assert_close(clustered.matrix, count / (count - 1) * plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(found(solution, "hac", each).matrix, plain, rtol=1e-10, atol=0)
    assert clustered.df == count - 1
    assert clustered.max_rank is None
    # With as few clusters as coefficients not all of them can be tested together.
    few = found(solution, "cluster", dependence(np.arange(count) % 4))
    assert few.max_rank == 3
    assert torch.linalg.matrix_rank(few.matrix) == 3
    assert few.kind.endswith("rank 3 for 7 parameters, which cannot be tested all together")


def test_rows_of_weight_zero_are_no_rows() -> None:
    of = data("stackloss")
    seen = np.arange(len(of.y)) != 3
    code, time = np.arange(len(of.y)) % 5, np.arange(len(of.y))
    code[3], time[3] = 5, 7
    zero = solve("gaussian", replace(of, weight=seen.astype(float)))
    without = solve("gaussian", sample(of.x[seen], of.y[seen]))
    for kind in (*LEVERAGED, *CLUSTERED):
        ours = errors(zero, kind, dependence(code, time=time))
        expected = errors(without, kind, dependence(code[seen], time=time[seen]))
        np.testing.assert_allclose(ours[0], expected[0], rtol=1e-9)
        assert ours[1] == expected[1]


# --- refusals


def test_a_row_with_a_leverage_of_one_is_named() -> None:
    of = data("engel")
    dummy = np.zeros(len(of.y))
    dummy[41] = 1.0
    alone = sample(np.column_stack([of.x, dummy]), of.y)
    names = Dependence(row_name=lambda row: f"<{row}>")
    for head in ("gaussian", "poisson"):
        for kind in LEVERAGED:
            solution = solve(head, replace(alone, y=np.round(of.y / 100)))
            reason = covariance(solution, kind, names)
            assert reason == (
                f"{kind} divides by 1 - h, and the leverage h of row <41> is 1: it alone determines a coefficient"
            )
        found(solution, "hc1")


REFUSED: list[tuple[StandardErrors, dict[str, Any], str]] = [
    ("cluster", {}, "there are no clusters: expected data.cluster"),
    ("cluster", {"codes": np.zeros(21, int)}, "one cluster (a) says nothing"),
    ("hac", {}, "rows have no order in time: expected data.time"),
    ("hac", {"time": np.arange(21) // 2}, "several have one time"),
    ("hac", {"time": np.arange(21), "lag": 21}, "a lag of 21 is not below the number of rows"),
    ("hac", {"time": np.arange(21), "weight": 2.0}, "weights say that some are several"),
    ("pearson", {"tau": 1.0}, "Pearson's dispersion is for estimates without a prior"),
]


@pytest.mark.parametrize(("kind", "case", "said"), REFUSED)
def test_refused(kind: StandardErrors, case: dict[str, Any], said: str) -> None:
    of = data("stackloss")
    of = replace(of, weight=np.full(21, case.get("weight", 1.0)))
    codes = [case["codes"]] if "codes" in case else []
    depends = dependence(*codes, time=case.get("time"), lag=case.get("lag"))
    reason = covariance(LinearBaseline().solve(problem_of("gaussian", of, case.get("tau"))), kind, depends)
    assert isinstance(reason, str)
    assert said in reason
