"""Distances to the exact estimate: gaps, divergence, skill, parameters."""

import math
from copy import deepcopy

import mpmath
import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
import torch
from exact_oracles import Sample, data, varied
from exact_solving import new_head, solve
from torch import Tensor
from torch.distributions import kl_divergence

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.baseline.predictor import as_objective
from mlefw.head.laplace import LaplaceHead
from mlefw.model.linear import Linear
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Evaluation, Objective, evaluate
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized

SCALE = 7.5
CANONICAL = [
    ("gaussian", "stackloss"),
    ("gaussian", "diabetes"),
    ("gaussian_fixed", "diabetes"),
    ("bernoulli", "spector"),
    ("bernoulli", "fair"),
    ("categorical", "anes96"),
    ("categorical", "wine_2"),
    ("poisson", "cpunish"),
    ("poisson", "randhie"),
]
ALL = [*CANONICAL, ("heteroscedastic", "engel"), ("laplace", "stackloss"), ("laplace", "engel")]


def exact(solution: Solution) -> Objective:
    """The exact estimate as the objective of a run."""
    problem = solution.problem
    linear = Linear(problem.rows.x.shape[1], problem.head.eta_dim).double()
    blank = Objective(
        Standardized(linear, problem.mean, problem.scale), problem.head, problem.prior, problem.population
    )
    return as_objective(solution, blank)


def moved(objective: Objective, size: float, seed: int) -> Objective:
    """The same with every parameter displaced at random."""
    other = deepcopy(objective)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*other.model.parameters(), other.head.shared):
            parameter += size * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return other


def solved(head: str, name: str, variant: str = "weight") -> tuple[Solution, Objective]:
    of = data(name)
    solution = solve(head, varied(of, variant), scale=SCALE)
    return solution, exact(solution)


def divergence(head: str, exact_eta: Tensor, model_eta: Tensor, shared: tuple[float, float]) -> Tensor:
    """KL(exact, model) row by row, in closed form."""
    a, b = exact_eta[:, 0], model_eta[:, 0]
    if head == "gaussian_fixed":
        return (a - b) ** 2 / (2 * SCALE**2)
    if head == "gaussian":
        s, t = shared
        return math.log(t / s) + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5
    if head == "bernoulli":
        softplus = torch.nn.functional.softplus
        return softplus(b) - softplus(a) - (b - a) * torch.sigmoid(a)
    if head == "categorical":
        p, q = exact_eta.log_softmax(1), model_eta.log_softmax(1)
        return (p.exp() * (p - q)).sum(1)
    return a.exp() * (a - b) - a.exp() + b.exp()


def shared_scale(objective: Objective) -> float:
    head = objective.head
    if not head.shared_dim:
        return SCALE
    return float((head.center[-1] + head.gain[-1] * head.shared[0]).exp())


@pytest.mark.parametrize("size", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("variant", ["plain", "weight and offset"])
@pytest.mark.parametrize(("head", "name"), CANONICAL)
def test_pythagoras(head: str, name: str, variant: str, size: float) -> None:
    """Under a canonical link the gap of any linear model on the training rows is its mean KL divergence."""
    solution, reference = solved(head, name, variant)
    rows = solution.problem.rows
    model = moved(reference, size, seed=3)
    at_model, at_exact = evaluate(model, rows), evaluate(reference, rows)
    share = rows.weight / rows.weight.sum()
    scales = (shared_scale(reference), shared_scale(model))
    closed = float(share @ divergence(head, at_exact.eta, at_model.eta, scales))
    gap, _ = distance.gap(at_model, at_exact, rows)
    found = distance.predictive_kl((model, at_model.eta), (reference, at_exact.eta), rows)
    assert gap > 0
    assert found == pytest.approx(closed, rel=1e-9, abs=1e-12)
    assert gap == pytest.approx(closed, rel=1e-9, abs=1e-10)
    assert gap == pytest.approx(found, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("head", "name"), ALL)
def test_no_linear_model_is_better(head: str, name: str) -> None:
    solution, reference = solved(head, name)
    rows = solution.problem.rows
    at_exact = evaluate(reference, rows)
    assert distance.gap(at_exact, at_exact, rows) == (0.0, 0.0)
    for seed in range(20):
        for size in (1e-6, 1e-3, 0.1):
            gap, error = distance.gap(evaluate(moved(reference, size, seed), rows), at_exact, rows)
            assert gap > -1e-12
            assert error > 0


@pytest.mark.parametrize(("head", "name"), ALL)
def test_the_error_of_a_gap_is_that_of_paired_rows(head: str, name: str) -> None:
    solution, reference = solved(head, name)
    rows = solution.problem.rows
    at_model, at_exact = evaluate(moved(reference, 0.2, 0), rows), evaluate(reference, rows)
    each = np.repeat((at_model.nll - at_exact.nll).numpy(), rows.weight.numpy().astype(int))
    gap, error = distance.gap(at_model, at_exact, rows)
    assert gap == pytest.approx(each.mean(), rel=1e-9)
    assert error == pytest.approx(each.std(ddof=1) / math.sqrt(len(each)), rel=1e-9)


def test_one_row_has_no_error() -> None:
    one = torch.ones(1, dtype=torch.float64)
    rows = Rows(one[:, None], one, one, 0 * one)
    gap, error = distance.gap(Evaluation(one[:, None], 3 * one), Evaluation(one[:, None], one), rows)
    assert gap == 2.0
    assert math.isnan(error)


def test_skill() -> None:
    assert distance.skill(model=1.4, exact=1.0, null=1.4, null_error=0.01) == 0.0
    assert distance.skill(model=1.0, exact=1.0, null=1.4, null_error=0.01) == 1.0
    assert distance.skill(model=1.1, exact=1.0, null=1.5, null_error=0.01) == pytest.approx(0.8)
    assert distance.skill(model=0.9, exact=1.0, null=1.5, null_error=0.01) == pytest.approx(1.2)
    assert distance.skill(model=1.6, exact=1.0, null=1.5, null_error=0.01) == pytest.approx(-0.2)
    assert distance.skill(model=1.1, exact=1.0, null=1.5, null_error=0.26) is None
    assert distance.skill(model=1.1, exact=1.0, null=1.0, null_error=0.0) is None
    assert distance.skill(model=1.1, exact=1.0, null=0.9, null_error=0.0) is None


@pytest.mark.parametrize(("head", "name"), [case for case in ALL if case[0] != "laplace"])
def test_mahalanobis_is_twice_the_gap_of_all_rows(head: str, name: str) -> None:
    solution, reference = solved(head, name)
    rows = solution.problem.rows
    at_exact = evaluate(reference, rows)
    for seed in range(3):
        model = moved(reference, 1e-4, seed)
        found = distance.parameter_distance(model, solution)
        gap, _ = distance.gap(evaluate(model, rows), at_exact, rows)
        assert found["mahalanobis"] ** 2 == pytest.approx(2 * solution.problem.population * gap, rel=5e-3)


@pytest.mark.parametrize(("head", "name"), ALL)
def test_the_estimate_is_at_no_distance_from_itself(head: str, name: str) -> None:
    solution, reference = solved(head, name)
    found = distance.parameter_distance(reference, solution)
    assert found["euclidean"] == pytest.approx(0, abs=1e-12)
    assert found["mahalanobis"] == pytest.approx(0, abs=1e-9)


def coefficients(objective: Objective, contrast: bool) -> np.ndarray:
    """Original coefficients (p + 1, columns), intercept first, by predicting at the origin and the unit vectors."""
    p = objective.model.mean.shape[0]
    points = torch.cat([torch.zeros(1, p), torch.eye(p)]).double()
    eta = objective.eta(points, torch.zeros(p + 1).double()).detach()
    if contrast:
        eta = (eta - eta[:, :1])[:, 1:]
    table = eta.clone()
    table[1:] -= eta[0]
    return table.numpy()


@pytest.mark.parametrize(
    ("head", "name"), [("bernoulli", "spector"), ("categorical", "wine_2"), ("poisson", "cpunish")]
)
def test_mahalanobis_is_that_of_statsmodels(head: str, name: str) -> None:
    """The distance does not depend on the units of the features: statsmodels measures it in the original ones."""
    solution, reference = solved(head, name, "plain")
    of = data(name)
    design = sm.add_constant(of.x)
    if head == "bernoulli":
        fit = sm.Logit(of.y, design).fit(disp=0, tol=1e-12, maxiter=100)
    elif head == "categorical":
        fit = sm.MNLogit(of.y, design).fit(disp=0, tol=1e-12, maxiter=100)
    else:
        fit = sm.GLM(of.y, design, sm.families.Poisson()).fit(tol=1e-14)
    model = moved(reference, 0.2, 1)
    contrast = head == "categorical"
    difference = (coefficients(model, contrast) - coefficients(reference, contrast)).T.reshape(-1)
    expected = math.sqrt(difference @ np.linalg.solve(np.asarray(fit.cov_params()), difference))
    assert distance.parameter_distance(model, solution)["mahalanobis"] == pytest.approx(expected, rel=1e-5)


def test_a_shift_of_all_logits_is_no_distance() -> None:
    solution, reference = solved("categorical", "anes96")
    model = moved(reference, 0.3, 2)
    before = distance.parameter_distance(model, solution)
    layer = model.model.model.layer
    with torch.no_grad():
        layer.weight += torch.linspace(-2, 2, layer.weight.shape[1], dtype=torch.float64)
        layer.bias += 5.0
    after = distance.parameter_distance(model, solution)
    assert before["euclidean"] > 0.1
    assert after["euclidean"] == pytest.approx(before["euclidean"], rel=1e-9)
    assert after["mahalanobis"] == pytest.approx(before["mahalanobis"], rel=1e-7)


def test_euclidean_distance_of_a_known_displacement() -> None:
    solution, reference = solved("bernoulli", "spector")
    model = moved(reference, 0.0, 0)
    layer = model.model.model.layer
    with torch.no_grad():
        layer.weight[0, 1] += 3.0
        layer.bias[0] -= 4.0
    assert distance.parameter_distance(model, solution)["euclidean"] == pytest.approx(5.0, rel=1e-12)


def test_laplace_is_measured_in_expected_information() -> None:
    solution, reference = solved("laplace", "stackloss", "plain")
    model = moved(reference, 0.05, 5)
    of: Sample = data("stackloss")
    difference = (coefficients(model, False) - coefficients(reference, False))[:, 0]
    design = sm.add_constant(of.x)
    b = shared_scale(reference)
    along = design @ difference
    squared = float(along @ along) / b**2 + len(of.y) * math.log(shared_scale(model) / b) ** 2
    assert distance.parameter_distance(model, solution)["mahalanobis"] == pytest.approx(math.sqrt(squared), rel=1e-6)


def test_other_models_have_no_parameter_distance() -> None:
    solution, reference = solved("bernoulli", "spector")
    network = Mlp(num_features=3, eta_dim=1).double()
    other = Objective(
        Standardized(network, solution.problem.mean, solution.problem.scale),
        reference.head,
        reference.prior,
        reference.population,
    )
    assert distance.parameter_distance(other, solution) is None


def test_full_weight_puts_zeros_where_columns_left() -> None:
    of = data("stackloss")
    twice = Sample(np.column_stack([of.x[:, :1], of.x]), ("again", *of.names), of.y, of.weight, of.offset)
    solution = solve("gaussian", twice)
    weight, _, _ = full_weight(solution)
    assert weight.shape == (1, 4)
    assert float(weight[0, 1]) == 0.0
    rows = solution.problem.rows
    fitted = evaluate(exact(solution), rows).eta[:, 0].numpy()
    np.testing.assert_allclose(fitted, sm.OLS(of.y, sm.add_constant(of.x)).fit().fittedvalues, rtol=1e-9)


# ------------------------------------------------------------------------------------------------------- divergence


def kl(head: str, p: list[float], q: list[float]) -> float:
    """KL between the distributions of a head at two etas."""
    made = LaplaceHead(scale="predicted") if head == "laplace" else new_head(head, len(p))
    a, b = (torch.tensor([eta], dtype=torch.float64) for eta in (p, q))
    return float(kl_divergence(made.distribution(a), made.distribution(b)))


def high_precision(head: str, p: list[float], q: list[float]) -> mpmath.mpf:
    """The same as a sum or integral of the definition, in 60 digits."""
    with mpmath.workdps(60):
        if head in ("bernoulli", "categorical"):
            a, b = (
                [mpmath.mpf(0), mpmath.mpf(v[0])] if head == "bernoulli" else [mpmath.mpf(x) for x in v] for v in (p, q)
            )
            log_a, log_b = ([x - mpmath.log(mpmath.fsum(map(mpmath.exp, v))) for x in v] for v in (a, b))
            return mpmath.fsum(mpmath.exp(x) * (x - y) for x, y in zip(log_a, log_b, strict=True))
        if head == "poisson":
            a, b = mpmath.mpf(p[0]), mpmath.mpf(q[0])
            rate = mpmath.exp(a)
            # E[y (a - b)] over the pmf, whose mean is the rate.
            return rate * (a - b) - rate + mpmath.exp(b)
        (m, s), (n, t) = ((mpmath.mpf(v[0]), mpmath.exp(mpmath.mpf(v[1]))) for v in (p, q))
        log = {
            "heteroscedastic": lambda y, m, s: -(((y - m) / s) ** 2) / 2 - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi)),
            "laplace": lambda y, m, s: -abs(y - m) / s - mpmath.log(2 * s),
        }[head]
        ends = sorted({m - 40 * s, m - 5 * s, m, n, m + 5 * s, m + 40 * s})
        return mpmath.quad(lambda y: mpmath.exp(log(y, m, s)) * (log(y, m, s) - log(y, n, t)), ends)


@pytest.mark.parametrize(
    ("head", "p", "q", "tolerance"),
    [
        *(("bernoulli", [a], [b], 1e-13) for a, b in ((0.3, -1.2), (21, 20.5), (-25, -25.1), (30, 35), (40, -3))),
        *(("bernoulli", [a], [b], 1e-13) for a, b in ((0, -800), (800, -800), (-800, 800), (-745, 0))),
        *(
            ("poisson", [a], [b], 1e-12)
            for a, b in ((0.3, -1.2), (10, 10.001), (-800, 0), (0, -800), (5, 7), (-700, 3))
        ),
        ("poisson", [1.0], [1.0 + 1e-6], 1e-9),
        ("categorical", [0, 1, 2], [0.5, 1, -2], 1e-13),
        ("categorical", [0, 1, 2], [0, 1, 900], 1e-13),
        ("categorical", [0, 0, -800], [0, 1, 2], 1e-13),
        ("categorical", [900, 0, 0], [0, 0, 900], 1e-13),
        ("heteroscedastic", [0.3, -0.2], [1.1, 0.4], 1e-12),
        ("heteroscedastic", [0.3, -3.0], [0.4, 2.0], 1e-12),
        ("laplace", [0.3, -0.2], [1.1, 0.4], 1e-12),
        ("laplace", [0.3, 0.5], [-4.0, -1.0], 1e-12),
    ],
)
def test_divergence_to_all_digits(head: str, p: list[float], q: list[float], tolerance: float) -> None:
    assert kl(head, p, q) == pytest.approx(float(high_precision(head, p, q)), rel=tolerance)


@pytest.mark.parametrize(("head", "name"), ALL)
def test_every_head_has_a_divergence(head: str, name: str) -> None:
    solution, reference = solved(head, name)
    rows = solution.problem.rows
    model = moved(reference, 0.1, 0)
    at_model, at_exact = evaluate(model, rows), evaluate(reference, rows)
    assert distance.predictive_kl((model, at_model.eta), (reference, at_exact.eta), rows) > 0
    assert distance.predictive_kl((reference, None), (reference, at_exact.eta), rows) == 0


# ------------------------------------------------------------------------------------------- the region of confidence


def test_the_confidence_region_is_that_of_the_likelihood_ratio() -> None:
    """For a Gaussian of known scale the log-likelihood ratio is RSS over sigma squared: exactly chi-squared."""
    solution, reference = solved("gaussian_fixed", "stackloss", "plain")
    rows = solution.problem.rows
    design = sm.add_constant(data("stackloss").x)
    limit = scipy.stats.chi2(4).ppf(0.95)
    for factor, inside in ((0.99, True), (1.01, False)):
        model = deepcopy(reference)
        with torch.no_grad():
            model.model.model.layer.bias += SCALE * math.sqrt(factor * limit / len(design)) / float(model.head.gain[0])
        gap, _ = distance.gap(evaluate(model, rows), evaluate(reference, rows), rows)
        assert distance.inside_95_region(solution, gap) is inside


def test_the_reference_class_counts_no_parameters() -> None:
    solution, _ = solved("categorical", "wine_2", "plain")
    limit = scipy.stats.chi2(2 * 3).ppf(0.95) / (2 * len(data("wine_2").y))
    assert distance.inside_95_region(solution, 0.999 * limit)
    assert not distance.inside_95_region(solution, 1.001 * limit)
