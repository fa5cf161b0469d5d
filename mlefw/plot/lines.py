"""Lines fitted under several noise models, and intervals with a shared or a predicted scale."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION, drawn, legend, sheet

Line = tuple[float, float]
"""Intercept and slope."""


@drawn
def outliers(x: np.ndarray, y: np.ndarray, fits: Mapping[str, Line], truth: Line) -> Figure:
    """Rows with outliers, x and y (n,), the line fitted by each head, and the true line."""
    figure = sheet(
        "Squared error bends the line to a few wrong rows; heavy tails let them be",
        "Exact maximum likelihood under each noise model",
        5.0,
    )
    axes = figure.add_subplot()
    axes.plot(x, y, ".", color="0.55", markersize=5, label="rows")
    ends = np.array([x.min(), x.max()])
    for (name, (intercept, slope)), color in zip(fits.items(), (VERMILION, ORANGE, GREEN, BLUE), strict=True):
        words = name.replace("_", "-").replace("student", "Student")
        axes.plot(ends, intercept + slope * ends, color=color, label=f"{words}: slope {slope:.2f}", linewidth=1.8)
    axes.plot(ends, truth[0] + truth[1] * ends, "--", color="black", linewidth=1.2, label=f"truth: slope {truth[1]:g}")
    axes.set(xlabel="x", ylabel="y")
    legend(axes, loc="upper left")
    return figure


@drawn
def spread(x: np.ndarray, y: np.ndarray, at: np.ndarray, bands: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Rows with 90 % bands, and the standard deviation over x.

    Args:
        x: feature of the rows, (n,).
        y: target of the rows, (n,).
        at: values of x at which the bands are given, (m,).
        bands: mean and standard deviation of y, (m,) each, by name of the model; the true ones under `truth`.
    """
    figure = sheet(
        "A scale that may vary with x finds noise that grows; a shared one is wrong on both sides",
        "Left: 90 % intervals; right: the standard deviation, learnt and true",
        4.9,
    )
    figure.subplots_adjust(wspace=0.22)
    left, right = figure.subplots(1, 2)
    left.plot(x, y, ".", color="0.6", markersize=3.5, label="rows")
    colors = dict(zip((name for name in bands if name != "truth"), (PURPLE, BLUE), strict=True))
    for name, (mean, sd) in bands.items():
        style: dict[str, Any] = {"color": colors.get(name, "black"), "linestyle": "--" if name == "truth" else "-"}
        if name != "truth":
            left.plot(at, mean - 1.645 * sd, **style, label=name)
            left.plot(at, mean + 1.645 * sd, **style)
        right.plot(at, sd, **style, label=name)
    left.set(xlabel="x", ylabel="y")
    right.set(xlabel="x", ylabel="standard deviation of y given x")
    right.set_ylim(bottom=0)
    legend(left, loc="upper left")
    legend(right, loc="upper left")
    return figure
