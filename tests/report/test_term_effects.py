"""What terms add to eta, and effects of groups, as numbers and as pictures: statsmodels, and sums written out."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from conftest import ROOT
from scipy import stats

from mlefw.baseline.covariance import Covariance, covariance
from mlefw.cli import run
from mlefw.plot.terms import MOST_PANELS, GroupPanel, TermLine, TermPanel, group_effects, term_effects
from mlefw.report.term_effects import group_panels, term_panels

sys.path.append(str(ROOT / "tests" / "baseline"))
from formula_fits import Fit, fit

RANDOM = np.random.default_rng(5)
N = 90
X, Z = RANDOM.normal(size=(2, N))
G = np.array(["a", "b", "c"])[np.arange(N) % 3]
K, B, SITE = np.array([1, 2, 5])[np.arange(N) // 30], Z > 0.2, np.array([f"s{k}" for k in np.arange(N) % 9])
RATE = np.exp(0.4 * X + 0.3 * (G == "b") - 0.2 * X * (G == "c"))
FRAME = pd.DataFrame({"x": X, "z": Z, "g": G, "k": K, "b": B, "site": SITE, "y": RANDOM.poisson(RATE)})


def errors(of: Fit) -> Covariance:
    found = covariance(of.solution)
    assert isinstance(found, Covariance)
    return found


def contrasts(design: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The estimates of (new − mean of the design)'β of a Poisson model, and half the width of their intervals."""
    glm = sm.GLM(FRAME["y"], sm.add_constant(design), family=sm.families.Poisson()).fit(tol=1e-14)
    test = glm.t_test(np.column_stack([np.zeros(len(new)), new - design.mean(0)]))
    return test.effect, stats.norm.ppf(0.975) * test.sd


def test_effects_are_contrasts_with_the_mean_over_the_rows() -> None:
    of = fit(FRAME, "formula=y ~ x + I(x**2) + C(k) + b + z*g", "head=poisson")
    panels = {panel.variable: panel for panel in term_panels(of.solution, of.schema, errors(of))["rate"]}
    assert {name: panel.title for name, panel in panels.items()} == {
        **{"x": "x + I(x ** 2)", "k": "C(k)", "b": "b", "z": "z + g + z:g"},
    }
    two, five, second, third = (K == 2), (K == 5), (G == "b"), (G == "c")
    design = np.column_stack([X, X**2, two, five, B, Z, second, third, Z * second, Z * third]).astype(float)
    grid, mean = panels["x"].x, design.mean(0)
    assert (grid[0], grid[-1]) == (X.min(), X.max())

    def expected(columns: list[int], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        new = np.tile(mean, (len(values), 1))
        new[:, columns] = values
        return contrasts(design, new)

    z = panels["z"].x
    cases: list[tuple[TermLine, list[int], np.ndarray]] = [
        (panels["x"].lines[""], [0, 1], np.column_stack([grid, grid**2])),
        (panels["k"].lines[""], [2, 3], np.array([[0, 0], [1, 0], [0, 1]])),
        (panels["b"].lines[""], [4], np.array([[0], [1]])),
        (panels["z"].lines["g a"], [5, 6, 7, 8, 9], np.column_stack([z, *np.zeros((4, len(z)))])),
        (panels["z"].lines["g c"], [5, 6, 7, 8, 9], np.column_stack([z, 0 * z, 0 * z + 1, 0 * z, z])),
    ]
    for line, columns, values in cases:
        value, half = expected(columns, values)
        assert line.value == pytest.approx(value, abs=1e-7)
        assert line.half == pytest.approx(half, rel=1e-5)
    assert (panels["k"].levels, panels["b"].levels) == (("1", "2", "5"), ("False", "True"))
    assert sorted(panels["x"].rug) == [*panels["x"].rug]
    assert {*panels["x"].rug} <= {*X}


def test_the_coefficients_of_a_trained_model_stand_beside_them() -> None:
    of = fit(FRAME, "formula=y ~ s(x, k=5) + g", "head=poisson")
    problem, whole = of.solution.problem, errors(of)
    weight = problem.split(of.solution.theta)[0]
    (panel, _) = term_panels(of.solution, of.schema, whole, 2 * weight)["rate"]
    assert panel.lines[""].trained == pytest.approx(2 * panel.lines[""].value)
    smooth = next(one for one in term_panels(of.solution, of.schema, None)["rate"] if one.variable == "x")
    assert smooth.title == f"s(x), edf {of.random('s(x)')['edf']:.2f}"
    assert smooth.lines[""].half is None
    assert smooth.lines[""].trained is None


def test_effects_of_groups_by_effect() -> None:
    of = fit(FRAME, "formula=y ~ x + (1 + x | site)", "head=poisson")
    intercepts, slopes = group_panels(of.solution, of.schema, errors(of))["rate"]
    line = of.random("(1 + x | site)")
    assert (intercepts.title, slopes.title) == ("(1 + x | site)", "(1 + x | site): x")
    for panel, part, effect in ((intercepts, line["effects"][:9], "(intercept)"), (slopes, line["effects"][9:], "x")):
        assert list(panel.names) == [one["name"].partition("[")[2][:-1] for one in part]
        assert panel.effects.tolist() == [one["estimate"] for one in part]
        assert panel.half == pytest.approx([1.959964 * one["std_error"] for one in part])
        assert panel.sd == line["sd"][effect]


def test_pictures_name_the_largest_effect_and_have_at_most_twelve_panels() -> None:
    x = np.linspace(0, 1, 5)
    panels = [TermPanel(f"s(x{k})", f"x{k}", x, {"": TermLine(k * x, 0.1 + x, -x)}, rug=x) for k in range(20)]
    figure = term_effects(panels, "loc", "loc", "95 % bands")
    assert figure.get_suptitle() == "x19 moves loc most, by 19 over the training rows"
    assert len(figure.axes) == MOST_PANELS
    assert {axes.get_ylim() for axes in figure.axes} == {figure.axes[0].get_ylim()}
    many = GroupPanel("(1 | $g$)", [f"g{k}" for k in range(100)], np.arange(100.0), None, 3.0)
    figure = group_effects([many, many], "rate", "log of rate")
    assert figure.get_suptitle() == r"(1 | \$g\$): standard deviation 3 of log of rate between groups"
    assert [axes.get_ylabel() for axes in figure.axes] == 2 * ["100 groups in order"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mlefw_baseline_writes_them_where_there_is_a_formula(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "d.csv", index=False)
    given = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "head=poisson")
    formula = "formula=y ~ bs(x, df=4) + (1 | site)"
    plain = ("data.target=y", "data.features=[x]")
    for name, settings in {"a": (formula,), "b": (formula, "plots=false"), "c": plain}.items():
        assert run(["baseline", *given, *settings, f"run_dir={tmp_path / name}"]) == 0
    written = sorted(file.name for file in (tmp_path / "a" / "plots").iterdir())
    assert written == ["groups_rate.png", "terms_rate.png"]
    assert not (tmp_path / "b" / "plots").exists()
    assert not (tmp_path / "c" / "plots").exists()


def test_dates_are_numbers_of_days_and_stand_along_the_axis() -> None:
    days = np.datetime64("2020-01-05") + 7 * np.arange(N)
    y = 0.3 * np.sin(np.arange(N) / 20) + 0.1 * RANDOM.normal(size=N)
    of = fit({"y": y, "day": days}, "formula=y ~ day")
    number = 18266 + 7.0 * np.arange(N)
    (panel,) = term_panels(of.solution, of.schema, errors(of))["loc"]
    slope, start = np.polyfit(number, y, 1)
    np.testing.assert_allclose(of.column("loc"), [start, slope], rtol=1e-7)
    assert panel.lines[""].value == pytest.approx(slope * (panel.x - number.mean()), abs=1e-9)
    axes = term_effects([panel], "loc", "loc", "").axes[0]
    axes.figure.canvas.draw()
    assert {"2021", "Jul"} <= {tick.get_text() for tick in axes.get_xticklabels()}
