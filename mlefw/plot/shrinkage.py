"""Coefficients over the scale of their prior."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlefw.plot.style import BLUE, GREEN, VERMILION, drawn, legend, sheet


@drawn
def paths(scales: np.ndarray, lines: Mapping[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Exact MAP coefficients over the scale of each prior; true values as dashed lines.

    Args:
        scales: prior scales, (S,).
        lines: MAP coefficients by name of the prior, (S, P).
        truth: true coefficients, (P,).
    """
    title = "A wide prior leaves the MLE, a narrow one zero; only the kink of l1 selects"
    figure = sheet(title, "Exact MAP of ten coefficients over the scale of the prior density; dashed: the truth", 4.8)
    figure.subplots_adjust(wspace=0.12, bottom=0.22)
    colors = dict(zip(np.flatnonzero(truth).tolist(), (BLUE, VERMILION, GREEN), strict=False))
    for axes, (name, line) in zip(figure.subplots(1, len(lines), sharey=True), lines.items(), strict=True):
        for j in range(len(truth)):
            axes.plot(scales, line[:, j], color=colors.get(j, "0.6"), linewidth=1.8 if j in colors else 1)
            if j in colors:
                axes.axhline(truth[j], color=colors[j], linestyle="--", linewidth=0.9)
        axes.set(xscale="log", xlabel="prior scale (of its l1 part)" if "elastic" in name else "prior scale")
        axes.set_title(name, fontsize=10.5)
    figure.axes[0].set_ylabel("coefficient")
    present = [Line2D([], [], color=color, label=f"x{j} = {truth[j]:g}") for j, color in colors.items()]
    absent = [Line2D([], [], color="0.6", linewidth=1, label="absent from the truth")]
    legend(figure.axes[1], loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4, handles=[*present, *absent])
    return figure
