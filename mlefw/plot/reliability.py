"""Reliability diagrams: whether events forecast with probability p happen in a share p of the cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from mlefw.distribution.reference import chi2_tail, poisson_tail
from mlefw.plot.style import (
    BLUE,
    FEW,
    GREY,
    SKY,
    VERMILION,
    binomial_band,
    drawn,
    label,
    legend,
    p_text,
    percent_axis,
    sheet,
)

MAX_CLASSES = 6
"""Most classes that get a panel each; for more, only the most likely class of each row is shown."""


@drawn
def reliability(
    probability: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray,
    rows: str,
    event: str | None = "y = 1",
    p_value: float | None = None,
    observation: str = "row",
) -> Figure:
    """Observed frequency against forecast probability: isotonic (CORP) curve, and equal-mass bins with their band.

    Args:
        probability: forecast probability of the event, (n,).
        outcome: whether the event happened, (n,), 0 or 1.
        weight: frequencies, (n,).
        rows: description of the rows, for the subtitle.
        event: name of the event; None if it is that the most likely class is the label.
        p_value: p-value of a test for calibration; by default of a χ² test over the bins.
        observation: what one observation is, in a word.

    Source: Dimitriadis, Gneiting & Jordan (2021).
    """
    bins = Bins.of(probability, outcome, weight)
    title = conclusion(bins, probability, outcome, weight, bins.p_value if p_value is None else p_value, event is None)
    of = "" if event is None else f" of {label(event)}"
    figure = sheet(title, f"Forecast probabilities against what happened: {rows}", 6.4)
    grid = figure.add_gridspec(2, 1, height_ratios=(5, 1), hspace=0.06)
    axes = figure.add_subplot(grid[0])
    _panel(axes, bins, probability, outcome, weight)
    axes.set_ylabel(
        f"share of {observation}s in which the likeliest class is right" if event is None else f"observed frequency{of}"
    )
    axes.tick_params(labelbottom=False)
    legend(axes, loc="best")
    below = figure.add_subplot(grid[1], sharex=axes)
    below.hist(probability, np.linspace(0, 1, 41).tolist(), weights=weight, color=SKY, edgecolor="white", linewidth=0.5)
    below.set(
        xlabel=f"forecast probability{of or ' of the likeliest class'}", ylabel=f"{observation}s", xlim=(-0.02, 1.02)
    )
    percent_axis(below.xaxis)
    return figure


@drawn
def reliability_by_class(
    probabilities: np.ndarray,
    code: np.ndarray,
    weight: np.ndarray,
    names: Sequence[str],
    rows: str,
    p_value: float | None = None,
    observation: str = "row",
) -> Figure:
    """Reliability of the most likely class of each row and, for a few classes, of each class.

    Args:
        probabilities: forecast probabilities, (n, K).
        code: observed class, (n,).
        weight: frequencies, (n,).
        names: names of the classes, (K,).
        rows: description of the rows, for the subtitle.
        p_value: p-value of a test for calibration; by default of a χ² test over the bins of the most likely class.
        observation: what one observation is, in a word.
    """
    confidence, hit = probabilities.max(1), (probabilities.argmax(1) == code).astype(float)
    if len(names) > MAX_CLASSES:
        return reliability(confidence, hit, weight, rows, None, p_value, observation)
    bins = Bins.of(confidence, hit, weight)
    title = conclusion(bins, confidence, hit, weight, bins.p_value if p_value is None else p_value, top=True)
    panels = [("likeliest class", confidence, hit)]
    panels += [(name, probabilities[:, k], (code == k).astype(float)) for k, name in enumerate(names)]
    columns = 2 if len(panels) <= 4 else 3
    num_rows = -(-len(panels) // columns)
    figure = sheet(title, f"Forecast probabilities against what happened: {rows}", 0.9 + 3.0 * num_rows)
    height = figure.get_figheight()
    figure.subplots_adjust(hspace=0.34, wspace=0.2, bottom=0.85 / height, top=figure.subplotpars.top - 0.18 / height)
    for position, (name, probability, outcome) in enumerate(panels):
        axes = figure.add_subplot(num_rows, columns, position + 1)
        panel = Bins.of(probability, outcome, weight)
        _panel(axes, panel, probability, outcome, weight)
        known = "" if panel.p_value is None else f": {p_text(panel.p_value)}"
        axes.set_title(f"{label(name, 20)}{known}", fontsize=10, loc="left")
        percent_axis(axes.xaxis, 4)
        percent_axis(axes.yaxis, 4)
        if position % columns == 0:
            axes.set_ylabel("observed frequency")
        if position + columns >= len(panels):
            axes.set_xlabel("forecast probability")
    handles, words = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, [*words[:2], "equal bins"], loc="lower center", ncols=3)
    return figure


@dataclass(frozen=True)
class Bins:
    """Equal-mass bins of a forecast.

    Attributes:
        count: Σ w in each bin.
        forecast: mean forecast probability in each bin.
        observed: observed frequency in each bin.
        variance: variance of Σ w y in each bin for a calibrated forecast.
    """

    count: np.ndarray
    forecast: np.ndarray
    observed: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, probability: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> "Bins":
        """At most 10 bins of at least 20 rows each; equal forecasts are in one bin."""
        num_bins = int(np.clip(weight.sum() // 20, 2, 10))
        order = np.argsort(probability, kind="stable")
        position = np.cumsum(weight[order]) / weight.sum()
        inner = np.searchsorted(position, np.arange(1, num_bins) / num_bins)
        edges = np.unique(probability[order][np.minimum(inner, len(order) - 1)])
        index = np.searchsorted(edges, probability, side="right")

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(index, weight * values, len(edges) + 1)

        count = total(np.ones_like(probability))
        held = count > 0
        count = count[held]
        return cls(
            count,
            total(probability)[held] / count,
            total(outcome)[held] / count,
            total(probability * (1 - probability))[held],
        )

    @property
    def p_value(self) -> float | None:
        """P-value of a χ² test over the bins; None if the total variance is below one.

        Neighbouring bins are merged up to a variance of one. Degrees of freedom are those for held-out rows.
        """
        excess, variance, groups = 0.0, 0.0, []
        for share, spread in zip(self.count * (self.observed - self.forecast), self.variance, strict=True):
            excess, variance = excess + share, variance + spread
            if variance >= 1:
                groups.append((excess, variance))
                excess, variance = 0.0, 0.0
        if not groups:
            return None
        groups[-1] = (groups[-1][0] + excess, groups[-1][1] + variance)
        return chi2_tail(sum(e * e / v for e, v in groups), len(groups))


def conclusion(
    bins: Bins,
    probability: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray,
    p_value: float | None,
    top: bool = False,
) -> str:
    """The title of a diagram: whether the forecast is calibrated, and if not, the larger of bias and overconfidence."""
    variance = float(bins.variance.sum())
    if variance < 1:
        errors = float(weight @ np.abs(outcome - (probability >= 0.5)))
        expected = float(weight @ np.minimum(probability, 1 - probability))
        rare = poisson_tail(round(errors), expected)
        verdict = "" if rare >= 0.05 else ", overconfident"
        return f"Nearly certain forecasts{verdict}: {errors:g} errors where {expected:.2g} are expected"
    if p_value is None or p_value >= 0.05:
        subject = "Too few rows to see whether probabilities" if weight.sum() < FEW else "Probabilities"
        return f"{subject} are calibrated" + ("" if p_value is None else f" ({p_text(p_value)})")
    deviation = weight * (outcome - probability)
    bias = float(deviation.sum()) / variance**0.5
    centred = probability - float(weight @ probability) / weight.sum()
    scale = float((weight * centred**2 * probability * (1 - probability)).sum()) ** 0.5
    slope = float((deviation * centred).sum()) / scale if scale > 0 else 0.0
    if top or abs(bias) > abs(slope):
        which = ("too high: overconfident" if bias < 0 else "too low: underconfident") if top else ""
        which = which or f"too {'high' if bias < 0 else 'low'}"
    else:
        which = "too extreme: overconfident" if slope < 0 else "too timid: underconfident"
    return f"Probabilities are {which} ({p_text(p_value)})"


def isotonic(probability: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct forecasts in order, and their frequencies by isotonic regression."""
    distinct, index = np.unique(probability, return_inverse=True)
    count = np.bincount(index, weight)
    held = count > 0
    frequency = np.bincount(index, weight * outcome)[held] / count[held]
    return distinct[held], np.asarray(isotonic_regression(frequency, weights=count[held]).x)


def _panel(axes: Axes, bins: Bins, probability: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    bands = [binomial_band(n, np.array([p])) for n, p in zip(bins.count, bins.forecast, strict=True)]
    low = np.array([float(band[0][0]) for band in bands])
    high = np.array([float(band[1][0]) for band in bands])
    text = "calibrated: 95 % of samples (binomial, each bin)"
    axes.vlines(bins.forecast, low, high, color=GREY, alpha=0.3, linewidth=8, label=text)
    forecast, frequency = isotonic(probability, outcome, weight)
    axes.plot(forecast, frequency, color=BLUE, linewidth=1.8, label="isotonic curve (CORP)")
    axes.plot(bins.forecast, bins.observed, "o", color=VERMILION, markersize=6, label=f"{len(bins.count)} equal bins")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
