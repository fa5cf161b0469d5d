"""Predictions against observations, and quantile residuals."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mlefw.distribution.rank_correlation import rank_correlation
from mlefw.distribution.reference import beta_quantile, normal_quantile, normal_tail
from mlefw.plot.style import BLUE, FEW, GREY, SKY, VERMILION, drawn, label, legend, p_text, sheet
from mlefw.system.number_format import percent

MAX_SHOWN = 300
"""Most rows in a picture of predictions."""


@drawn
def predictions(
    y: np.ndarray,
    mean: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    weight: np.ndarray,
    target: str,
    rows: str,
    figures: Mapping[str, float],
    observation: str = "row",
) -> Figure:
    """Predicted mean, 90 % interval and observed value of rows, sorted by predicted mean.

    Args:
        y: observed values, (n,).
        mean: predicted means, (n,).
        lower: 5 % quantiles, (n,).
        upper: 95 % quantiles, (n,).
        weight: frequencies, (n,).
        target: name of y.
        rows: description of the rows, for the subtitle.
        figures: figures of the metrics, which the title repeats. The share of points inside would be another coverage
            for a discrete target, whose intervals contain more than their nominal share.
        observation: what one observation is, in a word.
    """
    inside = (y >= lower) & (y <= upper)
    words = [f"90 % intervals cover {percent(figures['coverage_90'])}"] if "coverage_90" in figures else []
    variance = float(weight @ (y - float(weight @ y / weight.sum())) ** 2 / weight.sum())
    words += [f"R² = {1 - figures['rmse'] ** 2 / variance:.2f}"] if "rmse" in figures and variance > 0 else []
    title = "; ".join(words) or "Predicted distributions beside what was observed"
    order = np.argsort(mean, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_SHOWN)).round().astype(int))]
    some = "" if len(shown) == len(order) else f", {len(shown)} of them shown"
    figure = sheet(title, f"Predictive distributions: {rows}{some}")
    axes = figure.add_subplot()
    at = np.arange(len(shown))
    axes.vlines(at, lower[shown], upper[shown], color=SKY, alpha=0.45, linewidth=max(1.0, 450 / len(shown)))
    axes.plot(at, mean[shown], color=BLUE, linewidth=2, label="predicted mean", zorder=3)
    hit = inside[shown]
    axes.plot(at[hit], y[shown][hit], ".", color="#333333", markersize=4, label="observed, inside", zorder=4)
    axes.plot(at[~hit], y[shown][~hit], "x", color=VERMILION, markersize=6, label="observed, outside", zorder=5)
    axes.plot([], [], color=SKY, linewidth=6, alpha=0.6, label="90 % interval")
    if float(y.min()) >= 0 and float(y.max()) > 50 * max(float(np.median(y)), 1.0):
        axes.set_yscale("symlog", linthresh=max(float(np.median(y)), 1.0))
    axes.set(xlabel=f"{observation}s in the order of their predicted mean", ylabel=label(target, 40))
    axes.set_xlim(-0.02 * len(shown) - 0.5, 1.02 * len(shown) - 0.5)
    legend(axes, loc="upper left")
    return figure


@drawn
def residuals(u: np.ndarray, mean: np.ndarray, weight: np.ndarray, rows: str, target: str) -> Figure:
    """Quantile residuals against the predicted mean, and their normal quantile-quantile plot.

    Residuals are Φ⁻¹ of the PIT, randomised for a discrete target; they are standard normal for a true model (Dunn &
    Smyth, 1996). The band of the second panel is for each order statistic of a normal sample.

    Args:
        u: PIT, (n,).
        mean: predicted means, (n,).
        weight: frequencies, (n,).
        rows: description of the rows, for the subtitle.
        target: name of y.
    """
    residual = normal_quantile(np.clip(u, 1e-12, 1 - 1e-12))
    figure = sheet(pattern(residual, mean, weight), f"Quantile residuals (Dunn & Smyth, 1996): {rows}", 4.4)
    figure.subplots_adjust(wspace=0.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    thin = np.unique(np.linspace(0, len(u) - 1, min(len(u), 3000)).astype(int))
    left.axhspan(-1.96, 1.96, color=GREY, alpha=0.15, linewidth=0, label="95 % of a true model's rows")
    left.axhline(0, color=GREY, linewidth=1)
    left.plot(mean[thin], residual[thin], ".", color=BLUE, alpha=0.5 if len(thin) > 500 else 0.8, markersize=5)
    left.set(xlabel=f"predicted mean of {label(target)}", ylabel="quantile residual (standard deviations)")
    reach = max(3.2, 1.05 * float(np.abs(residual).max()))
    left.set_ylim(-reach, reach * 1.25)
    legend(left, loc="upper left")

    order = np.argsort(residual, kind="stable")
    population = float(weight.sum())
    rank = np.cumsum(weight[order]) - weight[order] / 2
    normal = normal_quantile(rank / population)
    k = np.clip(rank + 0.5, 0.5, population)
    low = normal_quantile(beta_quantile(0.025, k, population + 1 - k))
    high = normal_quantile(beta_quantile(0.975, k, population + 1 - k))
    fill = np.unique(np.concatenate([np.linspace(0, len(u) - 1, 400), np.arange(min(50, len(u)))]).astype(int))
    fill = np.unique(np.concatenate([fill, len(u) - 1 - fill]))
    text = "true model: 95 % (order statistics)"
    right.fill_between(normal[fill], low[fill], high[fill], color=GREY, alpha=0.25, linewidth=0, label=text)
    ends = normal[[0, -1]]
    right.plot(ends, ends, color=GREY, linewidth=1)
    right.plot(normal[fill], residual[order][fill], ".", color=BLUE, markersize=4)
    right.set(xlabel="standard normal quantile", ylabel="")
    right.set_ylim(left.get_ylim())
    legend(right, loc="upper left")
    return figure


def pattern(residual: np.ndarray, mean: np.ndarray, weight: np.ndarray) -> str:
    """The most significant of five departures from standard normal noise, at a joint level of 5 %, in words."""
    share, root = weight / weight.sum(), float(weight.sum()) ** 0.5
    trend = rank_correlation(residual, mean, weight)
    fan = rank_correlation(np.abs(residual), mean, weight)
    center, spread = float(share @ residual), float(share @ residual**2)
    centred = residual - center
    kurtosis = float(share @ centred**4) / max(float(share @ centred**2) ** 2, 1e-300) - 3
    found = [
        (trend * root, "Residuals rise with the predicted mean", "Residuals fall with the predicted mean"),
        (
            fan * root,
            "Residual spread grows with the predicted mean",
            "Residual spread shrinks with the predicted mean",
        ),
        (center * root, "Observations lie above their predictions", "Observations lie below their predictions"),
        ((spread - 1) * root / 2**0.5, "Residuals are wider than predicted", "Residuals are narrower than predicted"),
    ]
    tails = (kurtosis * root / 24**0.5, "Residuals have heavier tails than predicted", "Residuals have lighter tails")
    # A varying spread also causes heavy tails, so tails are named only if no other departure is found.
    for z, more, less in (max(found, key=lambda one: abs(one[0])), tails):
        p = float(2 * normal_tail(abs(z)))
        if p < 0.05 / 5:
            return f"{more if z > 0 else less} ({p_text(p)})"
    if weight.sum() < FEW:
        return "Too few rows to tell the residuals from those of a true model"
    return "Quantile residuals look like those of a true model"
