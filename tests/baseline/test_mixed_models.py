"""Mixed models of labels, counts and costs by maximum likelihood, against values that R's glmmTMB printed."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from formula_fits import Fit, fit
from scipy.sparse import csc_array, issparse, random_array

from mlefw.baseline import eta_rows
from mlefw.baseline.eta_rows import EtaRows
from mlefw.baseline.hypothesis_tests import likelihood_ratio, refusal
from mlefw.baseline.laplace_integral import LaplaceIntegral
from mlefw.baseline.nested import nested_effects
from mlefw.baseline.quadratic import Criterion
from mlefw.baseline.sparse_factor import factor_of


def grouped() -> dict[str, np.ndarray]:
    """Rows in 12 groups crossed with 6 blocks, and targets of several kinds with effects of them."""
    random = np.random.default_rng(18)
    n = 96
    g, b = np.repeat(np.arange(12), 8), np.tile(np.arange(6), 16)
    x, z = random.normal(size=n), random.normal(size=n)
    u, s, v = random.normal(size=12), random.normal(size=12), random.normal(size=6)
    eta = 0.4 + 0.5 * x + 0.9 * u[g]
    mean = np.exp(1.0 + (0.4 + 0.3 * s[g]) * x + 0.5 * u[g])
    return {
        **{"g": g, "b": b, "x": x, "z": z},
        "label": (random.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
        "count": random.poisson(mean),
        "crossed": random.poisson(np.exp(0.8 + 0.4 * x + 0.5 * u[g] + 0.4 * v[b])),
        "spread": random.poisson(np.exp(1.2 + 0.3 * x + 0.5 * u[g]) * random.gamma(2.0, 0.5, n)),
        "cost": np.exp(0.5 + 0.3 * x + 0.5 * u[g]) * random.gamma(3.0, 1 / 3, n),
        "level": 1.0 + x + u[g] + np.exp(0.5 * z) * random.normal(size=n),
    }


DATA = {**grouped(), "row": np.array([f"r{k}" for k in range(96)])}


class Printed(NamedTuple):
    """What R printed for `summary`, `logLik`, `AIC`, `BIC` and `VarCorr` of a model."""

    settings: tuple[str, ...]
    log_likelihood: float
    estimates: tuple[float, ...]
    errors: tuple[float, ...]
    sds: tuple[float, ...]
    aic: float
    bic: float


MODELS = {
    "label": Printed(
        ("formula=label ~ x + z + (1 | g)", "head=bernoulli"),
        -57.9634802342,
        (-0.1998433171, 0.2938475772, 0.7299552685),
        (0.31942514, 0.2563599, 0.25775431),
        (0.7475371647,),
        *(123.9269605, 134.1843532),
    ),
    "count": Printed(
        ("formula=count ~ x + (1 + x | g)", "head=poisson"),
        -185.2940434972,
        (0.8995402775, 0.2898683637),
        (0.13889504, 0.095305729),
        (0.4111155578, 0.1293513843),
        *(380.588087, 393.409828),
    ),
    "crossed": Printed(
        ("formula=crossed ~ x + (1 | g) + (1 | b)", "head=poisson"),
        -176.3205353104,
        (0.7795066918, 0.4172270774),
        (0.22288659, 0.06170683),
        (0.4630565167, 0.3949864058),
        *(360.6410706, 370.8984634),
    ),
    "each row": Printed(
        ("formula=spread ~ x + (1 | g) + (1 | row)", "head=poisson"),
        -204.44496596903,
        (0.6690876106, 0.3495446405),
        (0.1725694197, 0.1058471868),
        (math.exp(-0.806342943), math.exp(-0.377228779)),
        *(416.8899319, 427.1473247),
    ),
    "spread": Printed(
        ("formula=spread ~ x + z + (1 | g)", "head=negative_binomial"),
        -203.4051552732,
        (0.9056850263, 0.3368849467, 0.09064598563),
        (0.16494715, 0.10219127, 0.1020023),
        (0.4424520951,),
        *(416.8103105, 429.6320515),
    ),
    "level": Printed(
        ("formula=level ~ x + (1 | g) | z", "head=gaussian"),
        -151.9778224751,
        (0.4830889153, 1.045731428),
        (0.27986553, 0.10162093),
        (0.9191605051,),
        *(313.955645, 326.7773859),
    ),
}


def first(of: Fit) -> str:
    """The first parameter of the distribution, which the terms are of."""
    return next(iter(of.content["coefficients"]))


@pytest.mark.parametrize("name", MODELS)
def test_all_maximise_the_marginal_likelihood_together(name: str) -> None:
    """Each model by glmmTMB 1.1.5, with its tolerances lowered: `dispformula = ~ z` for `level`, else defaults."""
    printed = MODELS[name]
    of = fit(DATA, *printed.settings, "baseline.scales=ml")
    content, parameter = of.content, first(of)
    assert of.log_likelihood == pytest.approx(printed.log_likelihood, abs=1e-7)
    assert (content["aic"], content["bic"]) == pytest.approx((printed.aic, printed.bic), abs=1e-5)
    assert of.column(parameter) == pytest.approx(printed.estimates, abs=1e-5)
    assert of.column(parameter, "std_error") == pytest.approx(printed.errors, rel=1e-4)
    sds = [sd for line in content["random"] for sd in line["sd"].values()]
    assert sds == pytest.approx(printed.sds, rel=1e-4)
    assert content["scales"]["gradient"] < 1e-6
    assert content["converged"]


def test_training_is_measured_from_the_penalised_estimate_at_these_scales() -> None:
    of = fit(DATA, *MODELS["label"].settings, "baseline.scales=ml")
    reached = of.optimum
    assert reached is not None
    problem = reached.problem
    assert problem.rho is not None and of.solution.problem.rho is not None
    assert torch.equal(problem.rho, of.solution.problem.rho)
    assert problem.derivatives(reached.theta).gradient.abs().max() < 1e-10
    assert problem.value(reached.theta) < problem.value(of.solution.theta) - 1e-6


@pytest.mark.parametrize("criterion", ["reml", "ml"])
def test_labels_that_a_coefficient_separates_have_no_estimate(criterion: Criterion) -> None:
    x = np.tile([0, 1], 48)
    data = {"g": DATA["g"], "x": x, "label": np.where(x == 1, 1, DATA["label"])}
    of = fit(data, "formula=label ~ x + (1 | g)", "head=bernoulli", f"baseline.scales={criterion}")
    assert of.content["exists"] is False
    assert "separat" in of.content["reason"]


@pytest.mark.parametrize("criterion", ["reml", "ml"])
def test_the_gradient_of_laplaces_criterion_is_that_of_differences(criterion: Criterion) -> None:
    given = "baseline.scales={s(x): 2.0, (1 | g): 1.5}"
    of = fit(DATA, "formula=count ~ s(x, k=5) + (1 | g)", "head=poisson", given)
    integral = LaplaceIntegral(of.solution.problem, criterion)
    x, step = np.full(integral.num_scales + len(integral.center), 0.3), 1e-4
    _, gradient = integral.value(x)
    sides = [[integral.value(x + sign * step * unit)[0] for sign in (1, -1)] for unit in np.eye(len(x))]
    assert len(x) == (2 if criterion == "reml" else 4)
    assert gradient == pytest.approx([(up - down) / (2 * step) for up, down in sides], rel=1e-6, abs=1e-7)


def test_nested_models_are_compared_by_the_marginal_likelihood() -> None:
    """The likelihood ratio is that of `anova` of two models of R's glmmTMB."""
    found = [
        fit(DATA, f"formula=label ~ {terms}", "head=bernoulli", "baseline.scales=ml").solution
        for terms in ("1 + (1 | g)", "x + z + (1 | g)", "1 + x + z", "x + C(g)")
    ]
    small, large, without, fixed = found
    assert nested_effects(small.problem, large.problem) is None
    test = likelihood_ratio(small, large)
    assert (test.statistic, test.df, test.p_value) == pytest.approx((11.37047075, 2, 0.0033957339), rel=1e-6)
    assert nested_effects(without.problem, large.problem) is None
    assert likelihood_ratio(without, large).df == 1
    # Effects of groups are no special case of coefficients of their levels, whose likelihood has no integral.
    assert "(1 | g)" in str(nested_effects(small.problem, fixed.problem))
    assert "columns" in str(nested_effects(without.problem, small.problem))
    restricted = fit(DATA, "formula=label ~ x + (1 | g)", "head=bernoulli").solution
    assert "baseline.scales=ml" in str(refusal(restricted))
    assert refusal(small) is None


def test_correlated_effects_contain_those_without_a_correlation() -> None:
    of = {
        terms: fit(DATA, f"formula=level ~ x + {terms}", "baseline.scales=ml").solution.problem
        for terms in ("(1 + x || g)", "(1 + x | g)", "(1 | b)")
    }
    apart, together, other = of.values()
    assert nested_effects(apart, together) is None
    assert nested_effects(together, apart) is not None
    assert nested_effects(other, together) is not None


def test_columns_with_many_zeros_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "baseline.scales={(1 | g): 1.5, (1 | b): 2.0}"
    of = fit(DATA, "formula=spread ~ x + (1 | g) + (1 | b)", "head=negative_binomial", given).solution
    problem, theta = replace(of.problem, rho=None), of.theta[of.problem.free].numpy()
    known, dense = problem.derivatives(of.theta), EtaRows(problem)
    monkeypatch.setattr(eta_rows, "_FEW", 0)
    rows = EtaRows(problem)
    assert [issparse(columns) for columns in (*dense.columns, *rows.columns)] == [False, False, True, True]
    here, n, free = rows.at(theta), problem.population, problem.free
    assert here.value == pytest.approx(n * known.value, rel=1e-12)
    assert rows.gradient(here.slope) == pytest.approx(n * known.gradient[free].numpy(), abs=1e-9)
    hessian = rows.hessian(here.curvature).toarray()
    assert hessian == pytest.approx(n * known.hessian[free][:, free].numpy(), abs=1e-9)
    inverse = np.linalg.inv(hessian + np.eye(len(hessian)))
    assert rows.slope_of_trace(theta, inverse) == pytest.approx(dense.slope_of_trace(theta, inverse), abs=1e-9)


def test_without_an_effect_the_model_is_that_without_groups() -> None:
    """The counts have no more spread between groups than within: the variance is zero, and it still counts."""
    data = {"g": DATA["g"], "x": DATA["x"], "y": 3 + np.tile([0, 1, -1, 2, -2, 1, 0, -1], 12)}
    of, plain = (fit(data, f"formula=y ~ x{more}", "head=poisson", "baseline.scales=ml") for more in (" + (1 | g)", ""))
    assert of.content["random"][0]["at_limit"]
    assert of.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    assert of.content["num_parameters"] == plain.content["num_parameters"] + 1
    for key in ("estimate", "std_error"):
        assert of.column("rate", key) == pytest.approx(plain.column("rate", key), rel=1e-5)
    assert of.content["converged"]


@pytest.mark.parametrize("density", [0.01, 0.9])
def test_a_factor_of_a_matrix_with_many_zeros_is_that_of_any_other(density: float) -> None:
    random = np.random.default_rng(3)
    half = random_array((90, 90), density=density, rng=random)
    matrix = csc_array(half @ half.T + 0.1 * np.eye(90))
    factor, right = factor_of(matrix), random.normal(size=(90, 4))
    assert factor is not None
    assert factor.half_log_det == pytest.approx(0.5 * np.linalg.slogdet(matrix.toarray())[1], rel=1e-12)
    assert factor.solve(right) == pytest.approx(np.linalg.solve(matrix.toarray(), right), rel=1e-9)
    assert factor_of(matrix - 0.2 * csc_array(np.eye(90))) is None
