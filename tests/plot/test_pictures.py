"""Pictures from arrays whose verdict is known, read back from what matplotlib was told to draw."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from statsmodels.distributions.empirical_distribution import ECDF

from mlefw.plot import path, pit, prediction, reliability, training
from mlefw.plot.comparison import comparison
from mlefw.plot.style import label, png

ROWS = "validation rows (n = 4000)"
N = 4000
ONES = np.ones(N)


def title(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def normal(scale: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Means and PIT of predictions Normal(mean + shift, scale), the truth being Normal(mean, 1)."""
    random = np.random.default_rng(1)
    mean = random.normal(size=N)
    return mean, stats.norm.cdf(random.normal(size=N) - shift, scale=scale)


@pytest.mark.parametrize(
    ("scale", "shift", "words", "coverage"),
    [
        (1.0, 0.0, "are calibrated (p = ", "within the band"),
        (0.7, 0.0, "are too narrow (p < 0.0001)", "too narrow"),
        (1.5, 0.0, "are too wide (p < 0.0001)", "too wide"),
        (1.0, -0.3, "lie too low (p < 0.0001)", ""),
        (1.0, 0.3, "lie too high (p < 0.0001)", ""),
    ],
)
def test_pit_and_coverage_say_what_is_wrong(scale: float, shift: float, words: str, coverage: str) -> None:
    _, u = normal(scale, shift)
    assert words in title(pit.pit_histogram(u, u, ONES, ROWS))
    assert coverage in title(pit.coverage_curve(u, u, ONES, ROWS))


def test_bars_are_the_density_and_the_band_is_binomial() -> None:
    _, u = normal()
    axes = pit.pit_histogram(u, u, ONES, ROWS).axes[0]
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert heights == pytest.approx(np.histogram(u, 20, (0, 1), density=True)[0], rel=1e-12)
    band = next(patch for patch in axes.patches if "calibrated" in str(patch.get_label()))
    low, high = stats.binom.interval(0.95, N, 1 / 20)
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low / N * 20, high / N * 20))


def test_the_coverage_curve_is_a_distribution_function() -> None:
    _, u = normal(0.8)
    line = pit.coverage_curve(u, u, ONES, ROWS).axes[0].lines[1]
    inside = ECDF(np.abs(2 * u - 1))
    assert np.allclose(line.get_ydata(), inside(np.asarray(line.get_xdata())), atol=1.1 / N)


def test_counts_are_spread_and_weights_are_repeated_rows() -> None:
    random = np.random.default_rng(2)
    rate = np.exp(random.normal(size=500))
    y, weight = random.poisson(rate), random.integers(0, 4, 500)
    lower, upper = stats.poisson.cdf(y - 1, rate), stats.poisson.cdf(y, rate)
    edges = np.linspace(0, 1, 21)
    expected = sum(
        w * np.diff(stats.uniform.cdf(edges, a, b - a)) for w, a, b in zip(weight, lower, upper, strict=True)
    )
    assert np.allclose(pit.spread(lower, upper, weight.astype(float), edges), expected, atol=1e-9)
    again = np.repeat(np.arange(500), weight)
    pairs = (
        pit.pit_histogram(lower, upper, weight.astype(float), ROWS, 0.5),
        pit.pit_histogram(lower[again], upper[again], np.ones(len(again)), ROWS, 0.5),
    )
    heights = [[bar.get_height() for bar in figure.axes[0].containers[0]] for figure in pairs]
    assert heights[0] == pytest.approx(heights[1], rel=1e-12)
    assert title(pairs[0]) == title(pairs[1])
    curves = [
        pit.coverage_curve(lower[i], upper[i], w, ROWS).axes[0].lines[1].get_ydata()
        for i, w in ((np.arange(500), weight.astype(float)), (again, np.ones(len(again))))
    ]
    assert np.allclose(*curves, rtol=1e-12)


def logits(slope: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Forecast probabilities and outcomes; the true log-odds are slope · forecast log-odds + shift."""
    random = np.random.default_rng(3)
    eta = random.normal(size=N) * 1.5
    return 1 / (1 + np.exp(-eta)), (random.random(N) < 1 / (1 + np.exp(-slope * eta - shift))).astype(float)


@pytest.mark.parametrize(
    ("slope", "shift", "words"),
    [
        (1.0, 0.0, "Probabilities are calibrated (p = "),
        (0.5, 0.0, "too extreme: overconfident (p < 0.0001)"),
        (2.0, 0.0, "too timid: underconfident (p < 0.0001)"),
        (1.0, -0.7, "too high (p < 0.0001)"),
        (1.0, 0.7, "too low (p < 0.0001)"),
    ],
)
def test_reliability_says_what_is_wrong(slope: float, shift: float, words: str) -> None:
    assert words in title(reliability.reliability(*logits(slope, shift), ONES, ROWS))


def test_the_isotonic_curve_and_the_bins() -> None:
    p, y = logits(0.7)
    weight = np.random.default_rng(4).integers(1, 4, N).astype(float)
    axes = reliability.reliability(p, y, weight, ROWS, "y = 1").axes[0]
    curve = next(line for line in axes.lines if "isotonic" in str(line.get_label()))
    expected = IsotonicRegression(y_min=0, y_max=1).fit(p, y, sample_weight=weight).predict(curve.get_xdata())
    assert np.allclose(curve.get_ydata(), expected, atol=1e-9)
    bins = next(line for line in axes.lines if "equal bins" in str(line.get_label()))
    assert len(bins.get_xdata()) == 10
    held = reliability.Bins.of(p, y, weight)
    assert held.count @ held.observed == pytest.approx(weight @ y, rel=1e-12)
    assert held.count @ held.forecast == pytest.approx(weight @ p, rel=1e-12)
    assert np.allclose(held.count, weight.sum() / 10, atol=4)


def test_classes_in_small_multiples_and_many_classes_in_one() -> None:
    random = np.random.default_rng(5)
    eta = random.normal(size=(N, 3)) * 2
    p = np.exp(eta) / np.exp(eta).sum(1, keepdims=True)
    code = np.array([random.choice(3, p=row) for row in p])
    figure = reliability.reliability_by_class(p, code, ONES, ["low", "mid", "high"], ROWS)
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == [
        "likeliest class",
        "low",
        "mid",
        "high",
    ]
    assert "calibrated (p = " in title(figure)
    sharp = np.exp(3 * eta) / np.exp(3 * eta).sum(1, keepdims=True)
    assert "overconfident" in title(reliability.reliability_by_class(sharp, code, ONES, ["a", "b", "c"], ROWS))
    many = np.full((N, 7), 1 / 7)
    assert len(reliability.reliability_by_class(many, random.integers(0, 7, N), ONES, list("abcdefg"), ROWS).axes) == 2


@pytest.mark.parametrize(
    ("p", "errors", "words"),
    [
        (np.repeat([1e-9, 1 - 1e-9], 50), 0, "Nearly certain forecasts: 0 errors"),
        (np.repeat([1e-9, 1 - 1e-9], 50), 2, "Nearly certain forecasts, overconfident: 2 errors"),
        (np.full(100, 0.5), 50, "Probabilities are calibrated (p = 1)"),
        (np.full(100, 0.9), 50, "too high"),
        (np.full(12, 0.5), 6, "Too few rows"),
    ],
)
def test_separated_constant_and_few_forecasts(p: np.ndarray, errors: int, words: str) -> None:
    y = (p > 0.5).astype(float)
    y[:errors] = 1 - y[:errors]
    figure = reliability.reliability(p, y, np.ones(len(p)), ROWS)
    assert words in title(figure)
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda mean, noise: noise, "look like those of a true model"),
        (lambda mean, noise: 1.3 * noise, "wider than predicted"),
        (lambda mean, noise: 0.7 * noise, "narrower than predicted"),
        (lambda mean, noise: noise + 0.5, "Observations lie above"),
        (lambda mean, noise: noise + 0.3 * mean, "rise with the predicted mean"),
        (lambda mean, noise: noise * np.exp(0.4 * mean) / 1.17, "spread grows with the predicted mean"),
    ],
)
def test_residuals_say_what_is_wrong(make: Callable[[np.ndarray, np.ndarray], np.ndarray], words: str) -> None:
    random = np.random.default_rng(6)
    mean, noise = random.normal(size=(2, N))
    u = stats.norm.cdf(make(mean, noise))
    figure = prediction.residuals(u, mean, ONES, ROWS, "y")
    assert words in title(figure)
    points = figure.axes[1].lines[1]
    sample = np.sort(make(mean, noise))
    assert np.asarray(points.get_ydata())[[0, -1]] == pytest.approx(sample[[0, -1]], abs=1e-4)


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(7)
    a, b, weight = random.normal(size=60), random.integers(0, 5, 60).astype(float), random.integers(1, 4, 60)
    again = np.repeat(np.arange(60), weight)
    expected = stats.spearmanr(a[again], b[again]).statistic
    assert prediction.rank_correlation(a, b, weight.astype(float)) == pytest.approx(expected, rel=1e-12)
    assert prediction.rank_correlation(a, np.zeros(60), weight.astype(float)) == 0


def test_predictions_are_sorted_and_thinned_and_the_title_repeats_the_figures() -> None:
    mean, u = normal()
    y = mean + stats.norm.ppf(u)
    figures = {"coverage_90": 0.713, "rmse": float(np.sqrt(np.mean((y - mean) ** 2)))}
    figure = prediction.predictions(y, mean, mean - 1.645, mean + 1.645, ONES, "y", ROWS, figures)
    assert title(figure) == f"90 % intervals cover 71 %; R² = {1 - np.mean((y - mean) ** 2) / np.var(y):.2f}"
    line = figure.axes[0].lines[0]
    assert np.all(np.diff(line.get_ydata()) >= 0)
    assert len(line.get_ydata()) == 300


def history(gap: list[float], start: float = 1.0) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "train/nll_nats": start + value, "validation/nll_nats": start + value + 0.2}
        for epoch, value in enumerate(gap)
    ]


def test_the_gap_is_logarithmic_and_linear_only_where_it_crosses_zero() -> None:
    lines = {"mle": {"train": 1.0, "validation": 1.25}, "null": {"train": 2.0, "validation": 2.0}}
    figure = training.gap_curve(history([1.0, 0.1, 0.003]), {"mle": {"train": 1.0, "validation": 1.1}}, 2, "mle")
    assert title(figure) == "Stops 0.003 nats a row above the linear MLE on training rows"
    assert figure.axes[0].get_yscale() == "log"
    crossing = training.gap_curve(history([1.0, 0.1, -0.1]), lines, 2, "mle", {"validation": 0.02})
    assert title(crossing) == "Stops 0.15 ± 0.02 nats a row below the linear MLE on validation rows"
    assert crossing.axes[0].get_yscale() == "symlog"
    assert np.asarray(crossing.axes[0].lines[0].get_ydata()) == pytest.approx([1.0, 0.1, -0.1])
    exact = training.gap_curve(history([0.1, 0.0]), {"mle": {"train": 1.0}}, 1, "mle")
    assert title(exact).startswith("Reaches the linear MLE on training rows")
    curves = training.learning_curves(history([1.0, 0.1]), lines, 1)
    assert title(curves) == "Validation NLL is 0.05 nats a row worse than the linear MLE"


def test_the_path_ends_in_or_out_of_the_region() -> None:
    estimate, covariance = np.array([1.0, -2.0, 0.5]), np.diag([0.01, 0.04, 0.01])
    way = estimate * np.linspace(0, 1, 11)[:, None]
    names = ["a", "b", "(intercept)"]
    near = path.coefficient_path(np.arange(11), way, names, estimate, covariance, 10, "MLE")
    assert title(near).startswith("All 3 kept coefficients lie within")
    far = path.coefficient_path(np.arange(11), way, names, estimate, covariance, 5, "MLE")
    assert title(far) == "3 of 3 kept coefficients lie outside the 95 % interval of the MLE"
    ring = near.axes[0].patches[0].get_xy()
    away = (ring - estimate[:2]) / np.sqrt(np.diag(covariance)[:2])
    assert (away**2).sum(1) == pytest.approx(np.full(len(ring), stats.chi2.ppf(0.95, 2)))
    raw = path.coefficient_path(np.arange(11), way, names, estimate, None, 10, "MAP")
    assert "0 from the MAP" in title(raw)


def test_names_from_data_are_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (r"$\frac{1$", "$x$", r"\$x$ and $y", "a\nb\u202e", "日本" * 30, "$" * 9):
        monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
        mean, u = normal()
        figure = prediction.residuals(u, mean, ONES, ROWS, name)
        assert png(figure).startswith(b"\x89PNG")
        shown = Text(0, 0, label(name), usetex=False)
        assert shown._preprocess_math(shown.get_text())[1] is False
        assert len(label(name)) <= 28 + name.count("$")
        assert label(name).isprintable()


def test_runs_are_ranked_with_their_errors() -> None:
    axes = comparison(["best", "other"], [1.0, 1.5], [0.1, 0.0], "test").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["best", "other"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
