"""`mlefw baseline formula=…` on models of many kinds, against what R prints for the same rows.

The rows are drawn by a fixed rule. The numbers are those of R 4.2.2 with MASS 7.3-58, survival 3.5, pscl 1.5.5, lme4
1.1-31, mgcv 1.8-41, glmmTMB, VGAM, quantreg and sandwich, iterated to convergence, of these rows as a CSV file.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from formula_fits import fit

from mlefw.command import baseline
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import UsageError


def made() -> dict[str, Any]:
    """120 rows with a target for each kind of model, in few digits, so that any program reads the same numbers."""
    rng, n = np.random.RandomState(18), 120
    x, z = rng.normal(size=n).round(2), rng.uniform(0, 2, n).round(2)
    a, b = rng.choice(["u", "v", "w"], n), rng.choice(["no", "yes"], n)
    batch, cask, yes = np.arange(n) // 12, np.arange(n) // 4 % 3, b == "yes"
    count, trials = rng.poisson(4 + 2 * z + 1.5 * yes), rng.randint(5, 20, n)
    hits = rng.binomial(trials, rng.beta(3 + z, 3 + yes))
    bought = (1 + 0.8 * x - z + rng.normal(size=n)).round(3)
    wait, until = 4 * rng.weibull(1.6, n) * np.exp(0.5 * x), rng.uniform(1, 12, n)
    mean = 1 / (1 + np.exp(1 - 0.5 * x - 0.4 * z))
    grade = np.digitize(0.7 * x + 0.6 * (a == "v") + rng.logistic(size=n), [-0.5, 1])
    days = rng.negative_binomial(1.8, 1.8 / (1.8 + np.exp(1 + 0.4 * x + 0.3 * yes)))

    def effects(sd: float, group: np.ndarray) -> np.ndarray:
        return np.asarray(sd * rng.normal(size=group.max() + 1)[group])

    return {
        **{"x": x, "z": z, "a": a, "b": b, "batch": [f"b{k}" for k in batch], "cask": [f"c{k}" for k in cask]},
        "cost": rng.gamma(4, 1 / (4 * (0.5 + 0.3 * z + 0.2 * yes))).round(4) + 0.001,
        **{"count": count, "trials": trials, "hits": hits},
        **{"low": [None if value < 0 else float(value) for value in bought], "high": np.maximum(bought, 0)},
        **{
            "time": np.minimum(wait, until).round(3) + 0.001,
            "died": (wait <= until) * 1,
            "status": 1 + (wait <= until),
        },
        "share": rng.beta(9 * mean, 9 * (1 - mean)).round(4),
        **{"grade": np.array(["Low", "Medium", "High"])[grade], "rows": rng.randint(1, 6, n)},
        "days": days * (rng.uniform(size=n) < 0.75),
        "seen": 1 + rng.poisson(0.5 + 0.7 * z),
        "strength": (60 + effects(1.7, batch) + effects(2.9, 3 * batch + cask) + rng.normal(size=n)).round(2),
        "wave": rng.poisson(np.exp(1 + np.sin(2 * x))),
    }


DATA = made()


class Printed(NamedTuple):
    """A model: its formula and settings, and what R prints.

    Attributes:
        formula: the formula.
        settings: other settings.
        log_likelihood: of the estimate; for mixed models that of the scales. None where R has none.
        table: estimates and standard errors by parameter.
    """

    formula: str
    settings: str
    log_likelihood: float | None
    table: dict[str, tuple[Sequence[float], Sequence[float]]]


EXPECTED, PEARSON, HC1, HC3, CLUSTER = (
    f"baseline.standard_errors={kind}" for kind in ("expected", "pearson", "hc1", "hc3", "cluster")
)


def of_log(value: float, error: float) -> tuple[list[float], list[float]]:
    """A positive parameter and its error, of those of its logarithm."""
    return [np.exp(value)], [error * np.exp(value)]


def of_log_inverse(value: float, error: float) -> tuple[list[float], list[float]]:
    """A parameter and its error, of those of the logarithm of its inverse."""
    return of_log(-value, error)


MODELS = {
    "glm(Gamma)": Printed(
        *("cost ~ z + b", f"head=gamma head.link=inverse {PEARSON}", None),
        {"mean": ([0.42471310272, 0.40179577023, 0.2492483028], [0.068202125391, 0.068243555829, 0.08252913038])},
    ),
    "glm(binomial)": Printed(
        *("cbind(hits, trials - hits) ~ x + z", "head=binomial", -346.368615164921),
        {"logits": ([-0.085564790931, 0.029091843029, 0.18199155491], [0.1033598512, 0.050340591092, 0.085885632636])},
    ),
    "glm(binomial(cauchit))": Printed(
        *("[hits, trials] ~ z + b", f"head=binomial head.link=cauchit {EXPECTED}", -325.494258038096),
        {"logits": ([0.23864275067, 0.13209573385, -0.54636047365], [0.097926991077, 0.071592700874, 0.087436258283])},
    ),
    "glm(quasibinomial)": Printed(
        *("hits ~ z*b", f"data.trials=trials head=binomial {PEARSON}", None),
        {
            "logits": (
                [0.39767540931, 0.0644599001, -0.86732850693, 0.18117958939],
                [0.24889853066, 0.20273188147, 0.34062752016, 0.28226674907],
            )
        },
    ),
    "glm(poisson(identity))": Printed(
        *("count ~ z + a", f"head=poisson head.link=identity {EXPECTED}", -289.629229931114),
        {
            "rate": (
                [4.7909967476, 1.8802310065, -0.36849555644, 0.026482701389],
                [0.53318213047, 0.39031510803, 0.54358988967, 0.62014293767],
            )
        },
    ),
    "survreg(gaussian), left-censored": Printed(
        *("cbind(low, high) ~ x + z", "head=censored", -117.341565326130),
        {
            "loc": ([0.56865651451, 0.83816442014, -0.69137779099], [0.23201309168, 0.12276233072, 0.1966535355]),
            "scale": of_log(0.07065803854, 0.099668467101),
        },
    ),
    "survreg(weibull)": Printed(
        *("Surv(time, died) ~ x", "head=censored head.component=weibull", -196.354581099695),
        {
            "scale": ([1.4320271832, 0.49479854836], [0.071101100142, 0.073824255825]),
            "shape": of_log_inverse(-0.42440334834, 0.088211803695),
        },
    ),
    "survreg(loglogistic)": Printed(
        *("Surv(time, status == 2) ~ x + a", "head=censored head.component=loglogistic", -201.324449494987),
        {
            "loc": (
                [1.2811259819, 0.4839807745, -0.10977254113, -0.31706284656],
                [0.15388839985, 0.088361564914, 0.20538008754, 0.22837727576],
            ),
            "scale": of_log(-0.65600571341, 0.089698044857),
        },
    ),
    "glmmTMB(beta)": Printed(
        *("share ~ x + z", "head=beta", 64.929536957637),
        {
            "mean": ([-1.1978113503, 0.5596387717, 0.49021371321], [0.13185757777, 0.062667633294, 0.10348038214]),
            "precision": of_log(np.log(8.5453470239), 0.1239414),
        },
    ),
    "polr": Printed(
        *("grade ~ x + a", "head=ordinal data.weight=rows data.labels=[Low,Medium,High]", -371.908801642130),
        {
            "logit": (
                [0.58461827823, 0.098076518901, -0.58967493005],
                [0.099767927166, 0.23582028761, 0.26316562394],
            ),
            "thresholds": ([-1.0255335108, 0.46785397151], [0.19376348339, 0.18763883325]),
        },
    ),
    "glm.nb": Printed(
        *("days ~ x + b", f"head=negative_binomial {EXPECTED}", -257.968369525164),
        {
            "mean": ([0.82839354381, 0.32406279315, 0.17697131525], [0.16838875286, 0.10636087837, 0.22672312944]),
            "dispersion": ([1 / 0.87368568405], [0.18078101655 / 0.87368568405**2]),
        },
    ),
    "zeroinfl": Printed(
        *("days ~ x + b | z", "head=zero_inflated_poisson", -272.019800947205),
        {
            "rate": ([1.3472038182, 0.20966259011, -0.014065507284], [0.093499671479, 0.052586409611, 0.11388632198]),
            "inflation": ([-0.59784858616, -0.13939868283], [0.40980952477, 0.34171757097]),
        },
    ),
    "zeroinfl(link = probit)": Printed(
        *("days ~ x + b | z", "head=zero_inflated_poisson head.zero=probit", -272.019934841171),
        {
            "rate": ([1.3472038117, 0.20966127488, -0.01406279008], [0.093499807505, 0.052586235546, 0.11388635253]),
            "inflation": ([-0.37272046379, -0.08476156589], [0.25076177994, 0.20793393252]),
        },
    ),
    "hurdle": Printed(
        *("days ~ x + b | z", "head=hurdle", -272.550954027611),
        {
            "rate": ([1.3665785211, 0.20064381502, -0.030172208941], [0.090546356646, 0.052066563654, 0.11303811401]),
            "nonzero": ([0.51753891361, 0.13169993182], [0.3887349837, 0.32372109868]),
        },
    ),
    "vglm(pospoisson)": Printed(
        *("seen ~ z + x", f"head=truncated {EXPECTED}", -165.260002640581),
        {"rate": ([0.14308193692, 0.4012141287, -0.01674420224], [0.1837592256, 0.1347451936, 0.074303360833])},
    ),
    "lmer": Printed(
        *("strength ~ z + (1 || batch) + (1 | batch:cask)", "", -231.009406981219),
        {"loc": ([59.987829704, -0.044903210708], [0.80024602182, 0.19142241178])},
    ),
    "lmer(REML = FALSE)": Printed(
        *("strength ~ z + (1 | batch)", "baseline.scales=ml", -289.503227545595),
        {"loc": ([59.948772859, -0.0079787527667], [0.8457326887, 0.39890631875])},
    ),
    "gam(poisson)": Printed(
        *("wave ~ s(x, k=8)", "head=poisson", -238.159072427835), {"rate": ([1.0451712001], [0.059372076578])}
    ),
    "rq(tau = 0.25)": Printed(
        *("strength ~ z + x", "head=quantile head.quantile=0.25", None),
        {"loc": ([58.10004347, -0.48640908277, -0.077019459432], [0.6527103493, 0.66276820432, 0.34865496135])},
    ),
    "lm, vcovHC(HC1)": Printed(
        *("strength ~ x + z", HC1, None),
        {"loc": ([59.145450784, 0.15255734143, 0.72760254932], [0.49591439134, 0.27679704571, 0.4997631399])},
    ),
    "lm, vcovCL": Printed(
        *("strength ~ x + z", f"data.cluster=batch {CLUSTER}", None),
        {"loc": ([59.145450784, 0.15255734143, 0.72760254932], [0.70313999469, 0.29311596074, 0.95957726003])},
    ),
    "glm(poisson), vcovHC(HC3)": Printed(
        *("count ~ x + z", f"head=poisson {HC3}", None),
        {"rate": ([1.577895655, 0.02462585114, 0.280132898], [0.087897151095, 0.03615643649, 0.070227831758])},
    ),
    "glm(poisson), vcovCL": Printed(
        *("count ~ x + z", f"head=poisson data.cluster=batch {CLUSTER}", None),
        {"rate": ([1.577895655, 0.02462585114, 0.280132898], [0.077684214575, 0.022850179745, 0.063185593515])},
    ),
}


def content_of(formula: str, *settings: str) -> dict[str, Any]:
    """What `mlefw baseline` writes about a model of these rows."""
    return fit(DATA, f'formula="{formula}"', *settings).content


def by_the_command(folder: Path, formula: str, *settings: str) -> dict[str, Any]:
    """What `mlefw baseline` writes about a model of these rows, read from a CSV file."""
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(DATA), *zip(*DATA.values(), strict=True)])
    given = [f'formula="{formula}"', "data=csv", f"data.path={folder / 'rows.csv'}", *settings]
    config = {**read_settings("baseline", given, [], ()), "run_dir": str(folder / "run")}
    baseline.run(settings_of(config), folder / "run")
    content: dict[str, Any] = json.loads((folder / "run" / "baseline.json").read_text(encoding="utf-8"))
    return content


def check(content: dict[str, Any], model: Printed) -> None:
    assert content["exists"]
    for parameter, (estimates, errors) in model.table.items():
        # The straight line of a smooth term is a coefficient of it here.
        rows = [row for row in content["coefficients"][parameter] if not row["name"].endswith(".line")]
        # The intercept of ordered classes is minus their first threshold.
        rows = rows[1:] if parameter == "logit" else rows
        found = np.array([row["estimate"] for row in rows])
        np.testing.assert_array_less(np.abs(found - estimates) / errors, 1e-5)
        np.testing.assert_allclose([row["std_error"] for row in rows], errors, rtol=1e-4)
    if model.log_likelihood is not None:
        marginal = content.get("scales")
        known = content["log_likelihood"] if marginal is None else -marginal["value"]
        assert known == pytest.approx(model.log_likelihood, abs=1e-6 * content["num_rows"])


@pytest.mark.filterwarnings("ignore:.*(no feature|distinct values|are not apart|columns without)")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "survreg(weibull)"])
def test_estimates_errors_and_likelihood(name: str) -> None:
    check(content_of(MODELS[name].formula, *MODELS[name].settings.split()), MODELS[name])


def test_survival_times_through_the_command(tmp_path: Path) -> None:
    model = MODELS["survreg(weibull)"]
    check(by_the_command(tmp_path, model.formula, *model.settings.split()), model)


@pytest.mark.parametrize(
    ("head", "zeros"),
    [(["hurdle", "head.component=negative_binomial"], "nonzero"), (["zero_inflated_negative_binomial"], "inflation")],
)
def test_the_second_part_is_that_of_the_zeros_and_parts_keep_to_their_parameters(head: list[str], zeros: str) -> None:
    config = read_settings("baseline", [f"head={head[0]}", *head[1:], 'formula="y ~ x | z | w"', "data=csv"], [], ())
    # In the order of the columns of eta, by which they are used.
    assert list(config["data"]["terms"].items()) == [("mean", "x"), ("dispersion", "w"), (zeros, "z")]


def test_failures_are_not_taken_for_trials() -> None:
    with pytest.raises(UsageError, match=r"failures or trials.*cbind\(y, trials - y\)"):
        read_settings("baseline", ["head=binomial", 'formula="cbind(y, n) ~ x"', "data=csv"], [], ())


def test_columns_outside_of_the_formula_may_be_missing(tmp_path: Path) -> None:
    # `low` is empty where nothing was bought.
    content = by_the_command(tmp_path, "high ~ x")
    assert [row["name"] for row in content["coefficients"]["loc"]] == ["(intercept)", "x"]
    assert content["num_rows"] == len(DATA["x"])


def test_the_link_of_the_zeros_is_not_that_of_the_counts() -> None:
    content = content_of("days ~ x | b", "head=hurdle", "head.zero=cauchit")
    assert content["links"] == {"rate": "log", "nonzero": "cauchit"}
    assert content["is_global"] is None or content["shown_by"], "a cauchit is not log-concave, and proves nothing"
    shares = np.array([(DATA["days"][DATA["b"] == group] > 0).mean() for group in ("no", "yes")])
    found = [row["estimate"] for row in content["coefficients"]["nonzero"]]
    np.testing.assert_allclose(np.cumsum(found), np.tan(np.pi * (shares - 0.5)), rtol=1e-7)
