"""Scales of smooth terms and effects of groups: values that R prints, and the criterion by its definition."""

import numpy as np
import pytest
from formula_fits import Fit, fit
from mixed_data import CBPP, MCYCLE, RAIL, SLEEPSTUDY
from scipy import stats

from mlefw.baseline.covariance import Covariance, covariance
from mlefw.errors import UsageError
from mlefw.report.term_effects import Effect, terms_of

RANDOM = np.random.default_rng(2)


@pytest.mark.parametrize(
    ("criterion", "value", "sd", "sigma", "error"),
    [("reml", -61.088500, 24.80547, 4.020779, 10.17104), ("ml", -64.280018, 22.62435, 4.020779, 9.284844)],
)
def test_a_random_intercept_is_that_of_nlme(
    criterion: str, value: float, sd: float, sigma: float, error: float
) -> None:
    """Pinheiro & Bates (2000), section 1.1; nlme prints standard errors of ML times sqrt(n / (n − p)), 9.554."""
    of = fit(RAIL, "formula=travel ~ (1 | rail)", f"baseline.scales={criterion}")
    assert -of.content["scales"]["value"] == pytest.approx(value, abs=1e-6)
    assert of.random("(1 | rail)")["sd"]["(intercept)"] == pytest.approx(sd, rel=1e-6)
    assert of.column("scale")[0] == pytest.approx(sigma, rel=1e-6)
    assert (of.column("loc")[0], of.column("loc", "std_error")[0]) == pytest.approx((66.5, error), rel=1e-6)
    assert of.content["scales"]["exact"] is True
    assert of.content["scales"]["gradient"] < 1e-6


REML = (-871.81413598, [251.4051048485, 10.4672859596], [6.82459669495, 1.54578964391])
ML = (-875.969672244, [251.4051048485, 10.4672859596], [6.63212274219, 1.50223021383])


@pytest.mark.parametrize(("criterion", "printed"), [("reml", REML), ("ml", ML)])
def test_correlated_slopes_are_those_of_lme4(criterion: str, printed: tuple[float, list[float], list[float]]) -> None:
    """The output of lmer(Reaction ~ Days + (1 + Days | Subject)) of lme4 1.1-31."""
    of = fit(SLEEPSTUDY, "formula=reaction ~ days + (1 + days | subject)", f"baseline.scales={criterion}")
    value, estimates, errors = printed
    assert -of.content["scales"]["value"] == pytest.approx(value, abs=1e-6)
    assert of.column("loc") == pytest.approx(estimates, rel=1e-6)
    assert of.column("loc", "std_error") == pytest.approx(errors, rel=1e-4)
    term = of.random("(1 + days | subject)")
    if criterion == "reml":
        assert [*term["sd"].values()] == pytest.approx([24.740657995, 5.922137659], rel=1e-4)
        assert [*term["correlations"].values()] == pytest.approx([0.06555124], abs=1e-4)
        assert of.column("scale")[0] == pytest.approx(25.591795722, rel=1e-5)
        effects = {line["name"].partition("[")[2]: line["estimate"] for line in term["effects"][18:]}
        assert effects["s308]"] == pytest.approx(9.19897576557, abs=1e-3)
        assert effects["s309]"] == pytest.approx(-8.61968061524, abs=1e-3)


def test_of_counts_out_of_trials_they_are_those_of_lme4() -> None:
    """glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), binomial) with tolPwrss = 1e-13, rhoend = 1e-8.

    By its own tolerances lme4 1.1-31 ends 3e-4 nats from its maximum, and its errors there are by 1 % too small.
    """
    settings = ("head=binomial", "data.trials=size", "baseline.scales=ml")
    of = fit(CBPP, "formula=incidence ~ C(period) + (1 | herd)", *settings)
    (table,) = of.content["coefficients"].values()
    estimates = [-1.398532152, -0.992332703, -1.128672080, -1.580313918]
    errors = [0.2324718561, 0.3066422323, 0.3266375757, 0.4274361349]
    assert [row["estimate"] for row in table] == pytest.approx(estimates, abs=1e-6)
    assert [row["std_error"] for row in table] == pytest.approx(errors, rel=1e-5)
    assert of.random("(1 | herd)")["sd"]["(intercept)"] == pytest.approx(0.6422614, rel=1e-6)
    assert of.log_likelihood == pytest.approx(-92.0262818648, abs=1e-8)
    assert of.content["scales"]["exact"] is False


def effect_of(of: Fit, column: int, *labels: str) -> Effect:
    """What some terms of a column of eta add to it."""
    design = of.schema.design
    assert design is not None
    terms = terms_of(design, design.parameters[column], len(of.schema.plain_names))
    errors = covariance(of.solution)
    assert isinstance(errors, Covariance)
    return Effect(of.solution, of.schema, errors, None, column, [term for term in terms if term.label in labels])


def test_a_smooth_term_of_accelerations() -> None:
    """Values by two independent ways: the restricted likelihood of the spline, and of its mixed model."""
    of = fit(MCYCLE, "formula=accel ~ s(times, k=10)")
    term, sigma = of.random("s(times)"), of.column("scale")[0]
    assert of.content["scales"]["value"] == pytest.approx(614.1995746402, abs=1e-8)
    assert sigma**2 == pytest.approx(505.849824, rel=1e-7)
    # The precision is in nats: times the variance it is what mgcv calls lambda.
    assert term["precision"] * sigma**2 == pytest.approx(7.14855, rel=1e-6)
    assert 1 + term["edf"] == pytest.approx(9.444291, abs=1e-6)
    line = effect_of(of, 0, "s(times)").along({"times": np.array([15.0, 30.0])})
    assert line.half is not None
    assert line.value + of.column("loc")[0] == pytest.approx([-24.377935, 27.233628], abs=1e-6)
    # The curve sums to zero over the rows, so that the intercept, which the published band holds, is apart.
    band = np.hypot(line.half / stats.norm.ppf(0.975), of.column("loc", "std_error")[0])
    assert band == pytest.approx([4.622483, 6.178737], abs=1e-6)


def test_a_term_without_an_effect_is_at_its_limit() -> None:
    x = RANDOM.uniform(0, 3, 80)
    line = 2 + 3 * x
    # Residuals without any pattern: orthogonal to all smooth curves and to the groups.
    g = np.tile(["a", "b", "c", "d"], 20)
    noise = RANDOM.normal(size=80)
    basis = np.column_stack([*(x**k for k in range(9)), *((g == one) for one in "abcd")])
    noise -= basis @ np.linalg.lstsq(basis, noise, rcond=None)[0]
    of = fit({"x": x, "g": g, "y": line + noise}, "formula=y ~ s(x, k=6) + (1 | g)")
    smooth, groups = of.random("s(x)"), of.random("(1 | g)")
    assert smooth["at_limit"]
    assert smooth["edf"] == pytest.approx(1, abs=1e-3)
    assert groups["at_limit"]
    assert groups["edf"] == pytest.approx(0, abs=1e-3)
    assert groups["sd"]["(intercept)"] < 1e-3
    assert of.eta()[:, 0] == pytest.approx(line, abs=1e-4)
    assert of.content["converged"]


def test_given_scales_are_a_ridge_of_the_term() -> None:
    n, precision = 70, 3.0
    x, z = RANDOM.normal(size=n), RANDOM.normal(size=n)
    y = RANDOM.poisson(np.exp(0.5 * np.sin(2 * x) + 0.2 * z))
    formula = "formula=y ~ z + s(x, k=6, bs='ps')"
    of = fit({"x": x, "z": z, "y": y}, formula, "head=poisson", f"baseline.scales={{s(x): {precision}}}")
    term = of.random("s(x)")
    wiggly = np.array([line["estimate"] for line in term["effects"]])
    design, names = of.data.train.x.numpy(), of.schema.names
    residual = y - np.exp(of.eta()[:, 0])
    at = [names.index(line["name"]) for line in term["effects"]]
    assert design[:, at].T @ residual == pytest.approx(precision * wiggly, abs=1e-6)
    others = [j for j in range(len(names)) if j not in at]
    assert design[:, others].T @ residual == pytest.approx(0, abs=1e-6)
    assert of.content["scales"]["criterion"] == "given"


@pytest.mark.parametrize("scales", ["{s(z): 1.0}", "{}", "{s(x): -1.0}", "{s(x): wide}", "mle"])
def test_scales_that_fit_no_term_are_refused(scales: str) -> None:
    x = np.arange(30.0)
    with pytest.raises(UsageError, match=r"baseline\.scales"):
        fit({"x": x, "y": np.sin(x)}, "formula=y ~ s(x, k=4)", f"baseline.scales={scales}")
