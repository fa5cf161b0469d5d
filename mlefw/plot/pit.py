"""Calibration of predictive distributions: the histogram of the PIT, and the coverage of central intervals."""

import numpy as np
from matplotlib.figure import Figure

from mlefw.distribution.reference import chi2_tail
from mlefw.plot.style import BLUE, FEW, GREY, SKY, VERMILION, binomial_band, drawn, legend, p_text, percent_axis, sheet
from mlefw.system.number_format import percent


@drawn
def pit_histogram(
    lower: np.ndarray, upper: np.ndarray, weight: np.ndarray, rows: str, p_value: float | None = None
) -> Figure:
    """Density of the PIT with the band of a calibrated model.

    Discrete targets: each row is spread over [P(Y < y), P(Y <= y)] (Czado, Gneiting & Held, 2009). The band is that of
    a binomial count in each bin; a PIT that is spread varies less, so that for discrete targets the band is too wide.

    Args:
        lower: P(Y < y), (n,).
        upper: P(Y <= y), (n,); equal to `lower` for a continuous target.
        weight: frequencies, (n,).
        rows: description of the rows, for the subtitle.
        p_value: p-value of a test for uniformity; by default of a χ² test over the bins, with the PIT of a discrete
            target randomised (seed 0).
    """
    population = float(weight.sum())
    num_bins = 20 if population >= 200 else 10 if population >= 50 else 5
    edges = np.linspace(0, 1, num_bins + 1)
    discrete = bool((upper > lower).any())
    height = spread(lower, upper, weight, edges) / population * num_bins
    if p_value is None:
        p_value = uniform_p_value(randomised(lower, upper), weight, num_bins)
    how = "non-randomised PIT (Czado et al., 2009)" if discrete else "probability integral transform F(y)"
    figure = sheet(_pit_title(lower, upper, weight, p_value), f"Histogram of the {how}: {rows}", 4.6)
    axes = figure.add_subplot()
    axes.bar(edges[:-1], height, 1 / num_bins, align="edge", color=SKY, edgecolor="white", label="observed")
    low, high = binomial_band(population, np.array([1 / num_bins]))
    at_most = "at most " if discrete else ""
    axes.axhspan(
        low[0] * num_bins,
        high[0] * num_bins,
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label=f"calibrated: {at_most}this in 95 % (binomial, each bin)",
    )
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set(xlabel="PIT: predicted probability of less than was observed", ylabel="density", xlim=(0, 1))
    axes.set_ylim(0, max(1.45 * max(high[0] * num_bins, 1.0), 1.25 * float(height.max())))
    legend(axes, loc="upper center", ncols=2)
    return figure


@drawn
def coverage_curve(
    lower: np.ndarray, upper: np.ndarray, weight: np.ndarray, rows: str, known: float | None = None
) -> Figure:
    """Observed against nominal coverage of central intervals, with the binomial band of a calibrated model.

    Discrete targets: the probability that the randomised PIT lies in the interval.

    Args:
        lower: P(Y < y), (n,).
        upper: P(Y <= y), (n,).
        weight: frequencies, (n,).
        rows: description of the rows, for the subtitle.
        known: coverage of the 90 % interval on the whole split, if these rows are a sample of it.
    """
    population = float(weight.sum())
    nominal = np.linspace(0.01, 0.99, 99)
    observed = np.array([covered(lower, upper, weight, level) for level in nominal])
    if known is not None:
        observed[89] = known
    at = float(observed[89])
    figure = sheet(_coverage_title(nominal, observed, population), f"Coverage of central prediction intervals: {rows}")
    axes = figure.add_subplot()
    low_band, high_band = binomial_band(population, nominal)
    band = "calibrated: 95 % of samples (binomial, each level)"
    axes.fill_between(nominal, low_band, high_band, color=GREY, alpha=0.25, linewidth=0, label=band)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.plot(nominal, observed, color=BLUE, linewidth=2, label="observed")
    axes.plot(0.9, at, "o", color=VERMILION, label=f"90 % interval: {percent(at)}")
    axes.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend(axes, loc="upper left")
    return figure


def spread(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weight in each bin, (len(edges) − 1,), each row spread evenly over [lower, upper]."""
    mass = upper - lower
    point = mass <= 0
    index = np.clip((upper[point] * (len(edges) - 1)).astype(int), 0, len(edges) - 2)
    counts = np.bincount(index, weight[point], len(edges) - 1).astype(float)
    low, mass, wide = lower[~point], mass[~point], weight[~point]
    below = np.array([float(wide @ np.clip((edge - low) / mass, 0, 1)) for edge in edges[1:-1]])
    return np.asarray(counts + np.diff(np.concatenate([[0.0], below, [float(wide.sum())]])))


def covered(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray, level: float) -> float:
    """Share of rows whose (randomised) PIT lies in the central interval of this level."""
    edge = (1 - level) / 2
    mass = upper - lower
    point = mass <= 0
    overlap = np.minimum(upper, 1 - edge) - np.maximum(lower, edge)
    share = np.clip(overlap / np.where(point, 1, mass), 0, 1)
    inside = np.where(point, (upper >= edge) & (upper <= 1 - edge), share)
    return float(weight @ inside / weight.sum())


def randomised(lower: np.ndarray, upper: np.ndarray, seed: int = 0) -> np.ndarray:
    """The PIT, (n,), drawn uniformly from [lower, upper] for a discrete target."""
    return np.asarray(lower + (upper - lower) * np.random.default_rng(seed).random(len(lower)))


def uniform_p_value(u: np.ndarray, weight: np.ndarray, num_bins: int) -> float:
    """P-value of the χ² test of uniformity over equal bins."""
    index = np.clip((u * num_bins).astype(int), 0, num_bins - 1)
    expected = weight.sum() / num_bins
    total = ((np.bincount(index, weight, num_bins) - expected) ** 2 / expected).sum()
    return chi2_tail(total, num_bins - 1)


def _coverage_title(nominal: np.ndarray, observed: np.ndarray, population: float) -> str:
    at = f"90 % intervals cover {percent(float(observed[89]))}"
    low, high = (float(edge[0]) for edge in binomial_band(population, np.array([0.9])))
    if not low <= observed[89] <= high:
        return f"{at}: too {'narrow' if observed[89] < low else 'wide'}"
    z = (observed - nominal)[9::10] / np.sqrt(nominal * (1 - nominal) / population)[9::10]
    worst = int(np.abs(z).argmax())
    if abs(z[worst]) > 3.5:
        return f"{at}, but {10 * (worst + 1)} % intervals cover {percent(float(observed[10 * worst + 9]))}"
    return f"{at}: within the band of a calibrated model"


def _pit_title(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray, p_value: float) -> str:
    """The title: whether the PIT is uniform, and if not, the larger departure, in location or in spread."""
    if p_value >= 0.05:
        if weight.sum() < FEW:
            return f"Too few rows to see whether predictive distributions are calibrated ({p_text(p_value)})"
        return f"Predictive distributions are calibrated ({p_text(p_value)})"
    share = weight / weight.sum()
    mean = float(share @ (lower + upper)) / 2
    square = float(share @ (lower**2 + lower * upper + upper**2)) / 3
    location = (mean - 0.5) * np.sqrt(12 * weight.sum())
    variance = (square - mean**2 - 1 / 12) * np.sqrt(180 * weight.sum())
    tails = 1 - covered(lower, upper, weight, 0.98)
    if variance < 0 and (tails - 0.02) * np.sqrt(weight.sum() / (0.02 * 0.98)) > 3:
        return f"Observations have heavier tails than predicted ({p_text(p_value)})"
    if max(abs(location), abs(variance)) < 2:
        return f"Predictive distributions have the wrong shape ({p_text(p_value)})"
    if abs(location) > abs(variance):
        return f"Predictive distributions lie too {'low' if location > 0 else 'high'} ({p_text(p_value)})"
    return f"Predictive distributions are too {'narrow' if variance > 0 else 'wide'} ({p_text(p_value)})"
