"""Whether a finite estimate exists, and the infimum where none does (Albert & Anderson, 1984; Geyer, 2009)."""

import math
import warnings
from functools import cache

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import Array, Sample, data, sample
from exact_solving import new_head, rows_of, solve
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import solve_null
from mlefw.baseline.nonexistence import remedy
from mlefw.baseline.problem import Problem
from mlefw.baseline.witness import fewer_rows
from mlefw.prior.none import NoPrior
from mlefw.report.coefficient_table import baseline_content
from mlefw.rows.standardize import feature_statistics

COMPLETE = [
    ("bernoulli", "breast_cancer"),
    ("bernoulli", "iris_setosa"),
    ("categorical", "wine"),
    ("categorical", "digits"),
]
OVERLAP = [
    ("bernoulli", "breast_cancer_20"),
    ("bernoulli", "iris_12"),
    ("bernoulli", "spector"),
    ("bernoulli", "fair"),
    ("categorical", "wine_2"),
    ("categorical", "anes96"),
    ("poisson", "cpunish"),
    ("poisson", "randhie"),
]


@pytest.mark.parametrize(("head", "name"), COMPLETE)
def test_complete_separation(head: str, name: str) -> None:
    solution = solve(head, data(name))
    assert not solution.exists
    assert "completely separated" in solution.reason
    assert solution.infimum == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("head", "name"), OVERLAP)
def test_overlap(head: str, name: str) -> None:
    solution = solve(head, data(name))
    assert solution.exists
    assert solution.converged
    assert solution.reason is None


@pytest.mark.parametrize(("head", "name"), [("bernoulli", "breast_cancer"), ("categorical", "iris")])
def test_a_prior_on_the_weights_makes_it_finite(head: str, name: str) -> None:
    solution = solve(head, data(name), tau=1.0)
    assert solution.exists
    assert solution.converged


def test_iris_is_separated_in_part() -> None:
    solution = solve("categorical", data("iris"))
    assert not solution.exists
    # Setosa leaves; versicolor and virginica overlap.
    rest = data("iris_12")
    fit = sm.Logit(rest.y, sm.add_constant(rest.x)).fit(tol=1e-9, maxiter=100, disp=0)
    assert -fit.llf / 150 == pytest.approx(0.0396618226, abs=1e-10)
    assert solution.infimum == pytest.approx(-fit.llf / 150, abs=1e-9)


def test_only_rows_off_the_boundary_are_called_perfect() -> None:
    """The fifty setosas: others fit well, but not without error."""
    assert "50 of 150 rows" in solve("categorical", data("iris")).reason


THRESHOLD = (np.array([[1.0], [2.0], [3.0], [3.0], [4.0], [5.0]]), np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("stretch", [1e-6, 1.0, 1e6])
def test_albert_and_anderson(stretch: float) -> None:
    x, y = THRESHOLD
    solution = solve("bernoulli", sample(stretch * x, y))
    assert not solution.exists
    assert solution.infimum == pytest.approx(2 / 6 * math.log(2), abs=1e-9)


def test_infimum_counts_row_weights() -> None:
    x, y = THRESHOLD
    solution = solve("bernoulli", sample(x, y, weight=np.array([1.0, 1.0, 2.0, 1.0, 1.0, 3.0])))
    assert not solution.exists
    assert solution.infimum == pytest.approx((2 * math.log(3 / 2) + math.log(3)) / 9, abs=1e-9)


def test_two_classes_as_labels_are_as_separated_as_binary() -> None:
    x, y = THRESHOLD
    solution = solve("categorical", sample(x, y))
    assert not solution.exists
    assert solution.infimum == pytest.approx(2 / 6 * math.log(2), abs=1e-9)


@pytest.mark.parametrize("head", ["bernoulli", "categorical"])
def test_one_row_more_on_the_wrong_side_makes_it_exist(head: str) -> None:
    x, y = THRESHOLD
    solution = solve(head, sample(np.vstack([x, [[3.1]]]), np.append(y, 0.0)))
    assert solution.exists
    assert solution.converged


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_counts_with_a_group_of_zeros_only(offset: float) -> None:
    of = data("randhie")
    x, y = of.x[:600, :3], of.y[:600].copy()
    group = np.arange(600) % 5 == 0
    y[group] = 0.0
    along = offset * np.cos(np.arange(600))
    solution = solve("poisson", sample(np.column_stack([x, group]), y, offset=along))
    assert not solution.exists
    assert "count of zero" in solution.reason
    design = sm.add_constant(x[~group])
    fit = sm.GLM(y[~group], design, sm.families.Poisson(), offset=along[~group]).fit(tol=1e-15, maxiter=100)
    assert solution.infimum == pytest.approx(-fit.llf / 600, abs=1e-9)


def test_counts_of_zero_only() -> None:
    of = data("cpunish")
    solution = solve("poisson", Sample(of.x, of.names, 0 * of.y, of.weight, of.offset))
    assert not solution.exists
    assert solution.infimum == pytest.approx(0, abs=1e-12)


def null_of(head: str, y: Array, num_classes: int = 0) -> object:
    rows = rows_of(sample(np.arange(len(y))[:, None], y), head)
    return solve_null(Problem.of(new_head(head, num_classes), rows, *feature_statistics(rows, True), NoPrior()))


@pytest.mark.parametrize(
    ("head", "y", "num_classes"),
    [
        ("bernoulli", np.ones(9), 0),
        ("bernoulli", np.zeros(9), 0),
        ("poisson", np.zeros(9), 0),
        ("categorical", np.zeros(9), 2),
    ],
)
def test_a_null_model_without_estimate(head: str, y: Array, num_classes: int) -> None:
    null = null_of(head, y, num_classes)
    assert not null.exists
    assert null.infimum == pytest.approx(0, abs=1e-12)


def test_a_class_without_training_rows() -> None:
    of = data("iris_12")
    solution = solve("categorical", Sample(of.x, of.names, 2 * of.y, of.weight, of.offset))
    fit = sm.Logit(of.y, sm.add_constant(of.x)).fit(tol=1e-9, maxiter=100, disp=0)
    assert not solution.exists
    assert solution.infimum == pytest.approx(-fit.llf / 100, abs=1e-9)


@pytest.mark.parametrize("head", ["gaussian", "laplace"])
@pytest.mark.parametrize("name", ["stackloss", "diabetes"])
def test_a_perfect_fit_has_no_scale(head: str, name: str) -> None:
    of = data(name)
    y = 3.0 + of.x @ np.arange(1.0, of.x.shape[1] + 1)
    solution = solve(head, Sample(of.x, of.names, y, of.weight, of.offset))
    assert not solution.exists
    assert "unbounded" in solution.reason


@pytest.mark.parametrize("head", ["gaussian", "laplace", "heteroscedastic"])
@pytest.mark.parametrize("slope", [0.0, 2.5])
def test_a_perfect_fit_states_its_coefficients_without_errors(head: str, slope: float) -> None:
    of = data("stackloss")
    y = 3.0 + of.x @ np.array([slope, 2 * slope, -slope])
    solution = solve(head, Sample(of.x, of.names, y, of.weight, of.offset))
    assert solution.reason.startswith("the linear model fits" if slope else "the target is constant")
    content = baseline_content(solution, list(of.names), None, "default")
    assert not content["exists"]
    assert list(content["coefficients"]) == ["loc"]
    rows = content["coefficients"]["loc"]
    found = [row["estimate"] for row in rows]
    np.testing.assert_allclose(found, [3.0, slope, 2 * slope, -slope], rtol=1e-9, atol=1e-12)
    assert all(set(row) == {"name", "estimate"} for row in rows)


@pytest.mark.parametrize(
    ("head", "setting"), [("gaussian", "head=gaussian_fixed head.scale"), ("laplace", "(head.scale")]
)
def test_the_remedy_names_the_setting_of_the_head(head: str, setting: str) -> None:
    of = data("stackloss")
    assert setting in remedy(solve(head, Sample(of.x, of.names, 0 * of.y, of.weight, of.offset)))


@pytest.mark.parametrize("tau", [None, 1.0])
@pytest.mark.parametrize(
    ("head", "value", "words"), [("poisson", 0.0, "every count is 0"), ("bernoulli", 1.0, "one value only")]
)
def test_one_value_alone_is_no_separation(head: str, value: float, words: str, tau: float | None) -> None:
    of = data("spector")
    weight = np.where(np.arange(len(of.y)) == 3, 0.0, 1.0)
    y = np.where(weight > 0, value, 1 - value)
    solution = solve(head, Sample(of.x, of.names, y, weight, of.offset), tau)
    assert not solution.exists
    assert words in solution.reason
    assert "separat" not in solution.reason
    assert "prior=l2" not in remedy(solution)


@pytest.mark.parametrize("head", ["gaussian", "laplace"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_target_has_no_scale(head: str, value: float) -> None:
    of = data("stackloss")
    solution = solve(head, Sample(of.x, of.names, np.full(len(of.y), value), of.weight, of.offset))
    assert not solution.exists


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_target_has_no_predicted_scale(value: float) -> None:
    of = data("stackloss")
    assert not solve("heteroscedastic", Sample(of.x, of.names, np.full(len(of.y), value), of.weight, of.offset)).exists


@pytest.mark.parametrize("head", ["gaussian_fixed", "laplace_fixed"])
def test_a_perfect_fit_with_a_given_scale_exists(head: str) -> None:
    of = data("stackloss")
    y = 3.0 + of.x @ np.array([1.0, 2.0, 3.0])
    solution = solve(head, Sample(of.x, of.names, y, of.weight, of.offset), scale=2.0)
    assert solution.exists
    assert solution.converged
    constant = math.log(2 * 2.0) if head == "laplace_fixed" else 0.5 * math.log(2 * math.pi) + math.log(2.0)
    assert solution.objective == pytest.approx(constant, abs=1e-9)


def test_a_predicted_scale_that_a_group_sends_to_zero() -> None:
    """One row has a dummy of its own: its residual is zero at every scale."""
    of = data("engel")
    dummy = np.zeros(len(of.y))
    dummy[7] = 1.0
    solution = solve("heteroscedastic", sample(np.column_stack([of.x, dummy]), of.y))
    assert not (solution.exists and solution.converged)


# --- against a linear program written out here


def separated_binary(x: Array, y: Array) -> bool:
    design = np.column_stack([np.ones(len(x)), x]) * np.where(y == 1, 1.0, -1.0)[:, None]
    found = linprog(-design.sum(0), A_ub=-design, b_ub=np.zeros(len(x)), bounds=[(-1, 1)] * design.shape[1])
    return -found.fun > 1e-7


def separated_labels(x: Array, y: Array) -> bool:
    design, classes = np.column_stack([np.ones(len(x)), x]), int(y.max()) + 1
    rows = []
    for z, label in zip(design, y.astype(int), strict=True):
        for other in set(range(classes)) - {label}:
            row = np.zeros((classes, design.shape[1]))
            row[label] += z
            row[other] -= z
            rows.append(row.reshape(-1))
    margins = np.array(rows)
    bounds = [(0, 0)] * design.shape[1] + [(-1, 1)] * (design.shape[1] * (classes - 1))
    found = linprog(-margins.sum(0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=bounds)
    return -found.fun > 1e-7


def separated_counts(x: Array, y: Array) -> bool:
    design = np.column_stack([np.ones(len(x)), x])
    zero, some = design[y == 0], design[y > 0]
    if not len(zero):
        return False
    bounds = [(-1, 1)] * design.shape[1]
    found = linprog(
        zero.sum(0), A_ub=zero, b_ub=np.zeros(len(zero)), A_eq=some, b_eq=np.zeros(len(some)), bounds=bounds
    )
    return found.status == 0 and -found.fun > 1e-7


def draw(head: str, seed: int, n: int, p: int) -> Sample:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p))
    if seed % 2:
        x[:, 0] = generator.integers(0, 3, n)
    eta = x @ generator.normal(size=p)
    if head == "bernoulli":
        y = (generator.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        y[:2] = 0.0, 1.0
    elif head == "categorical":
        y = (eta[:, None] * np.array([-1.0, 0.0, 1.0]) + generator.gumbel(size=(n, 3))).argmax(1).astype(float)
        y[:3] = 0.0, 1.0, 2.0
    else:
        y = generator.poisson(np.exp(0.5 * eta - 1.5)).astype(float)
        y[0] = 1.0
    return sample(x, y)


PROGRAMS = {"bernoulli": separated_binary, "categorical": separated_labels, "poisson": separated_counts}
SMALL = {"bernoulli": (14, 3), "categorical": (16, 3), "poisson": (9, 3)}


@cache
def small(head: str, seed: int) -> tuple[Sample, Solution]:
    """A set of few rows, which may be separated, with its estimate."""
    of = draw(head, seed, *SMALL[head])
    return of, solve(head, of)


@pytest.mark.parametrize("head", PROGRAMS)
def test_small_sets_exist_exactly_where_a_linear_program_says_so(head: str) -> None:
    pairs = [small(head, seed) for seed in range(60)]
    expected = [not PROGRAMS[head](of.x, of.y) for of, _ in pairs]
    assert 10 < sum(expected) < 50, "the draw should hold both kinds"
    found = [solution.exists for _, solution in pairs]
    wrong = [seed for seed, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert wrong == []


@pytest.mark.parametrize("head", PROGRAMS)
def test_ample_data_are_never_flagged(head: str) -> None:
    for seed in range(20):
        of = draw(head, seed, 250, 4)
        assert not PROGRAMS[head](of.x, of.y)
        solution = solve(head, of)
        assert solution.exists, seed
        assert solution.converged, seed


@pytest.mark.parametrize("head", ["bernoulli", "categorical"])
def test_the_infimum_is_what_a_vanishing_penalty_approaches(head: str) -> None:
    compared = 0
    for seed in range(60):
        of, solution = small(head, seed)
        if solution.exists or solution.infimum is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-12, max_iter=10000).fit(of.x, of.y)
            reached = -float(fit.predict_log_proba(of.x)[np.arange(len(of.y)), of.y.astype(int)].mean())
        assert solution.infimum <= reached + 1e-9
        assert solution.infimum == pytest.approx(reached, abs=1e-5), seed
        compared += 1
    assert compared > 10


def test_a_row_of_weight_zero_separates_nothing() -> None:
    of = data("spector")
    weight = of.weight.copy()
    weight[5] = 0.0
    x = np.column_stack([of.x, np.arange(len(of.y)) == 5])
    solution = solve("bernoulli", sample(x, of.y, weight=weight))
    assert solution.exists
    kept = weight > 0
    fit = sm.Logit(of.y[kept], sm.add_constant(of.x[kept])).fit(tol=1e-9, maxiter=100, disp=0)
    assert solution.objective == pytest.approx(-fit.llf / kept.sum(), rel=1e-10)
    assert torch.equal(solution.problem.active, torch.arange(3))


@pytest.mark.parametrize(("head", "value"), [("bernoulli", 0.0), ("bernoulli", 1.0), ("poisson", 0.0)])
def test_a_prior_on_the_weights_does_not_hold_the_bias(head: str, value: float) -> None:
    """The bias has a flat prior: with one outcome only it goes to infinity, weights or not."""
    of = data("spector")
    solution = solve(head, Sample(of.x, of.names, np.full(len(of.y), value), of.weight, of.offset), tau=1.0)
    assert not solution.exists


def test_a_prior_on_the_weights_does_not_hold_the_bias_of_a_class_without_rows() -> None:
    of = data("iris_12")
    assert not solve("categorical", Sample(of.x, of.names, 2 * of.y, of.weight, of.offset), tau=1.0).exists


def test_a_row_of_weight_zero_hides_no_separation() -> None:
    of = sample(np.arange(1.0, 7.0)[:, None], np.array([0.0, 0, 1, 0, 1, 1]))
    assert solve("bernoulli", of).exists
    ignored = sample(of.x, of.y, weight=np.array([0.0, 0, 0, 1, 1, 1]))
    solution = solve("bernoulli", ignored)
    assert not solution.exists
    assert solution.infimum == pytest.approx(0, abs=1e-12)
    assert solution.problem.rows.num_rows == 6


@pytest.mark.parametrize("head", ["negative_binomial", "poisson", "gaussian"])
def test_merged_rows_have_the_objective_of_all_rows(head: str) -> None:
    """Equal rows with offsets and weights of their own, one of them twice as heavy as the others."""
    random = np.random.default_rng(3)
    x, y = random.integers(0, 2, (400, 1)).astype(float), random.integers(0, 4, 400).astype(float)
    weight, offset = 1.0 + (np.arange(400) == 7), 0.5 * random.integers(0, 2, 400)
    rows = rows_of(Sample(x, ("x",), y, weight, offset), head)
    problem = Problem.of(new_head(head, 0), rows, *feature_statistics(rows, True), NoPrior())
    merged = fewer_rows(problem)
    assert merged.rows.num_rows == 16
    theta = torch.from_numpy(random.normal(size=problem.size))
    assert merged.value(theta) == pytest.approx(problem.value(theta), rel=1e-13)
