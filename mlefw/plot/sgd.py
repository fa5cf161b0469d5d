"""Gradient descent on its way to the exact estimate, and the noise of stochastic gradient descent about it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlefw.distribution.reference import chi2_quantile
from mlefw.plot.style import BLUE, GREEN, GREY, ORANGE, VERMILION, drawn, legend, sheet

Curve = tuple[np.ndarray, np.ndarray]
"""NLL and slope coefficient after each step, each (T,)."""

_FEW = 8
"""Number of points below which a curve is drawn with markers."""


@drawn
def race(
    full: Curve,
    stochastic: Curve,
    exact: tuple[float, float],
    name: str,
    title: str,
    subtitle: str,
    calm: tuple[Curve, str] | None = None,
    has_box: bool = True,
) -> Figure:
    """NLL and slope over iterations, the exact values as dashed lines, and a box of final values.

    Args:
        full: the curve of full-batch gradient descent.
        stochastic: the curve of stochastic gradient descent.
        exact: NLL and slope of the exact estimate.
        name: name of the exact estimate, MLE or MAP.
        title: the conclusion.
        subtitle: what is shown.
        calm: the curve of a descent that converges and its name, if the others diverge.
        has_box: whether to draw the box.
    """
    figure = sheet(title, subtitle, 5.2 if has_box else 4.4)
    figure.subplots_adjust(wspace=0.26, bottom=0.3 if has_box else 0.13)
    quantity = "NLL" if name == "MLE" else "objective"
    height = f"{quantity} (nats per row)"
    lines = [(stochastic, "mini-batch SGD", VERMILION), (full, "full-batch GD", BLUE)]
    others = [] if calm is None else [(*calm, GREEN)]
    for axes, which, quantity_name in zip(figure.subplots(1, 2), (0, 1), (height, "slope"), strict=True):
        for curve, label, color in others + lines:
            # A curve of a few points is hardly visible without markers.
            marker = "o" if len(curve[which]) < _FEW else None
            axes.plot(curve[which], color=color, label=label, linewidth=1.6, marker=marker)
        axes.axhline(exact[which], color="black", linestyle="--", linewidth=1.2, label=f"exact {name}")
        axes.set(xlabel="iteration", ylabel=quantity_name)
        if which == 0:
            _near(axes, [curve[0] for curve, _, _ in lines], exact[0])
        elif calm is not None:
            _about(axes, calm[0][1], exact[1])
        legend(axes, loc="upper right" if which == 0 else "lower right")
    if not has_box:
        return figure
    text = f"{'':<15}{quantity:>10}{'above ' + name:>12}{'slope':>10}{'error':>11}\n"
    text += f"{'exact ' + name:<15}{exact[0]:>10.5f}{'':>12}{exact[1]:>10.5f}\n"
    for curve, label, _ in reversed(lines):
        nll, slope = float(curve[0][-1]), float(curve[1][-1])
        text += f"{label:<15}{nll:>10.5f}{nll - exact[0]:>12.1e}{slope:>10.5f}{slope - exact[1]:>+11.1e}\n"
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#f4f4f4", "edgecolor": "0.8"}
    words: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 8.5, "ha": "center", "multialignment": "left"}
    figure.text(0.5, 0.025, text.rstrip("\n"), bbox=box, **words)
    return figure


def _near(axes: Axes, curves: Sequence[np.ndarray], exact: float) -> None:
    """Limit the axis to the descent, so that a divergence does not compress it."""
    top = max(float(curve[0]) for curve in curves)
    highest = max(float(np.max(curve)) for curve in curves)
    room = max(top - exact, 1e-3)
    axes.set_ylim(exact - 0.06 * room, min(highest, exact + 2 * room) + 0.04 * room)


def _about(axes: Axes, curve: np.ndarray, exact: float) -> None:
    """Limit the axis to a descent that converges, and the beginning of one that diverges."""
    low, high = min(float(curve.min()), exact), max(float(curve.max()), exact)
    room = max(high - low, 1e-3)
    axes.set_ylim(low - room, high + room)


@drawn
def noise(
    cloud: np.ndarray,
    predicted: np.ndarray,
    sampling: np.ndarray,
    sizes: Sequence[int],
    measured: Sequence[float],
    theory: Sequence[float],
    averaged: Sequence[float],
    averaged_theory: Sequence[float],
    title: str,
    subtitle: str,
) -> Figure:
    """Iterates about the optimum with the ellipse that theory predicts, and their distance for several batch sizes.

    Args:
        cloud: intercept and slope of iterates minus the optimum, (N, 2).
        predicted: covariance of the iterates by the Lyapunov equation, (2, 2).
        sampling: covariance of the exact estimate over data sets, (2, 2).
        sizes: batch sizes.
        measured: measured root mean square distance of the iterates from the optimum, for each batch size.
        theory: predicted root mean square distance of the iterates.
        averaged: measured root mean square distance of the averaged iterates.
        averaged_theory: predicted root mean square distance of the averaged iterates.
        title: the conclusion.
        subtitle: what is shown.
    """
    figure = sheet(title, subtitle, 5.0)
    figure.subplots_adjust(wspace=0.28)
    left, right = figure.subplots(1, 2)
    left.plot(cloud[:, 0], cloud[:, 1], ".", color=VERMILION, markersize=2.5, alpha=0.35, label="SGD iterates")
    ellipse(left, predicted, color=BLUE, label="Lyapunov: 95 % region")
    ellipse(left, sampling, color="black", linestyle="--", label="MLE: 95 % confidence region")
    left.plot(0, 0, "+", color="black", markersize=12, markeredgewidth=2)
    left.set(xlabel="intercept − MLE", ylabel="slope − MLE")
    low, high = left.get_ylim()
    left.set_ylim(low, high + 0.28 * (high - low))
    legend(left, loc="upper left", fontsize=8, markerscale=3)
    right.plot(sizes, theory, color=BLUE, label="iterates, predicted")
    right.plot(sizes, measured, "o", color=VERMILION, label="iterates, measured")
    right.plot(sizes, averaged_theory, color=GREEN, label="their average, predicted")
    right.plot(sizes, averaged, "s", color=ORANGE, label="their average, measured")
    error = float(np.sqrt(np.trace(sampling)))
    right.axhline(error, color="black", linestyle="--", linewidth=1.2, label="error of the MLE itself")
    right.set(xlabel="batch size", ylabel="root mean square distance to the MLE", xscale="log", yscale="log")
    right.set_xticks(list(sizes), [str(size) for size in sizes])
    right.minorticks_off()
    least, most = min(min(averaged), min(averaged_theory)), max(max(measured), error)
    right.set_ylim(least / 6, 1.5 * most)
    legend(right, loc="lower left", fontsize=8)
    return figure


def ellipse(axes: Axes, covariance: np.ndarray, label: str, **style: Any) -> None:
    """Draw the 95 % region of a normal distribution about the origin."""
    angle = np.linspace(0, 2 * np.pi, 200)
    root = np.linalg.cholesky(covariance) * chi2_quantile(0.95, 2) ** 0.5
    ring = (root @ np.stack([np.cos(angle), np.sin(angle)])).T
    axes.plot(ring[:, 0], ring[:, 1], linewidth=1.8, label=label, **style)
    grey: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "alpha": 0.5}
    axes.axhline(0, **grey)
    axes.axvline(0, **grey)
