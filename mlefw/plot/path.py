"""The path of a linear model's coefficients to the exact estimate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlefw.distribution.reference import chi2_quantile
from mlefw.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, drawn, epoch_axis, label, legend, sheet

_BELOW: Mapping[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)


@drawn
def coefficient_path(
    epochs: np.ndarray,
    path: np.ndarray,
    names: Sequence[str],
    estimate: np.ndarray,
    covariance: np.ndarray | None,
    kept: int,
    reference: str,
) -> Figure:
    """Coefficients over epochs in standard errors from the exact estimate, and two of them with their joint region.

    Args:
        epochs: number of epochs at each point, (T,).
        path: coefficients of standardised features at each point, (T, P).
        names: names of the coefficients, (P,).
        estimate: the exact estimate, (P,).
        covariance: covariance of the estimate, (P, P); without it the path is shown in the units of coefficients.
        kept: number of epochs at the state that was kept.
        reference: name of the estimate, MLE or MAP.
    """
    at = int(np.argmin(np.abs(epochs - kept)))
    if covariance is None:
        return _raw(epochs, path, names, estimate, at, reference)
    error = np.sqrt(np.diag(covariance))
    away = (path - estimate) / error
    outside = int((np.abs(away[at]) > 1.96).sum())
    worst = float(np.abs(away[at]).max())
    if outside:
        title = f"{outside} of {len(names)} kept coefficients lie outside the 95 % interval of the {reference}"
    else:
        title = (
            f"All {len(names)} kept coefficients lie within {max(worst, 0.001):.2g} standard errors of the {reference}"
        )
    subtitle = f"Coefficients of standardised features over epochs, against the exact {reference}"
    figure = sheet(title, subtitle, 5.4)
    figure.subplots_adjust(bottom=1.42 / 5.4)
    slopes = [j for j, name in enumerate(names) if not name.startswith("(")]
    strongest = sorted(slopes, key=lambda j: -abs(estimate[j] / error[j]))
    if len(strongest) < 2:
        _standardized(figure.add_subplot(), epochs, away, names, list(range(len(names))), at, reference)
        return figure
    figure.subplots_adjust(wspace=0.26)
    left, right = figure.subplots(1, 2)
    i, j = strongest[:2]
    _plane(left, path[:, [i, j]], estimate[[i, j]], covariance[np.ix_([i, j], [i, j])], at, reference)
    left.set(xlabel=label(names[i]), ylabel=label(names[j]))
    _standardized(right, epochs, away, names, strongest, at, reference)
    return figure


def _plane(axes: Axes, path: np.ndarray, estimate: np.ndarray, covariance: np.ndarray, at: int, reference: str) -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    root = np.linalg.cholesky(covariance) * chi2_quantile(0.95, 2) ** 0.5
    ring = estimate + (root @ np.stack([np.cos(angle), np.sin(angle)])).T
    axes.fill(ring[:, 0], ring[:, 1], color=GREY, alpha=0.25, linewidth=0, label="95 % region (joint)")
    axes.plot(path[:, 0], path[:, 1], color=BLUE, linewidth=1.5, marker=".", markersize=4, label="one point an epoch")
    axes.plot(*path[0], "s", color=BLUE, markersize=7, label="start")
    axes.plot(*path[at], "o", color=VERMILION, markersize=8, label="kept")
    axes.plot(*estimate, "+", color="black", markersize=13, markeredgewidth=2, label=f"exact {reference}")
    axes.margins(0.1)
    legend(axes, fontsize=8, ncols=2, **_BELOW)


def _standardized(
    axes: Axes,
    epochs: np.ndarray,
    away: np.ndarray,
    names: Sequence[str],
    order: Sequence[int],
    at: int,
    reference: str,
) -> None:
    """All coefficients in standard errors from the estimate, in one band; the first of `order` are labelled."""
    axes.axhspan(-1.96, 1.96, color=GREY, alpha=0.2, linewidth=0, label="95 % interval")
    axes.axhline(0, color=GREY, linewidth=1)
    named = list(order[: len(_COLORS)])
    for j in set(range(len(names))) - set(named):
        axes.plot(epochs, away[:, j], color="0.7", linewidth=0.8)
    for color, j in zip(_COLORS, named, strict=False):
        axes.plot(epochs, away[:, j], color=color, linewidth=1.5, label=label(names[j], 22))
    axes.axvline(epochs[at], color="0.6", linewidth=1)
    if float(np.abs(away).max()) > 8:
        axes.set_yscale("symlog", linthresh=2)
    axes.set(xlabel="epochs", ylabel=f"(coefficient − {reference}) / standard error")
    epoch_axis(axes.xaxis)
    legend(axes, fontsize=8, ncols=2, **_BELOW)


def _raw(
    epochs: np.ndarray, path: np.ndarray, names: Sequence[str], estimate: np.ndarray, at: int, reference: str
) -> Figure:
    distance = float(np.linalg.norm(path[at] - estimate))
    title = f"The kept coefficients lie {distance:.2g} from the {reference} (Euclidean)"
    figure = sheet(title, f"Coefficients of standardised features over epochs; dashed: the exact {reference}")
    axes = figure.add_subplot()
    slopes = [j for j, name in enumerate(names) if not name.startswith("(")] or list(range(len(names)))
    for color, j in zip(_COLORS, sorted(slopes, key=lambda j: -abs(estimate[j])), strict=False):
        axes.plot(epochs, path[:, j], color=color, label=label(names[j]))
        axes.axhline(estimate[j], color=color, linestyle="--", linewidth=1)
    axes.axvline(epochs[at], color="0.6", linewidth=1)
    axes.set(xlabel="epochs", ylabel="coefficient")
    legend(axes, fontsize=8, ncols=2)
    return figure
