"""Errors over sample size, studentised estimates, and the bias of the variance."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlefw.distribution.reference import normal_quantile
from mlefw.plot.style import BLUE, GREY, VERMILION, drawn, legend, sheet


@drawn
def picture(
    errors: tuple[Sequence[int], Sequence[float], Sequence[float]],
    z: np.ndarray,
    ratios: tuple[Sequence[int], Sequence[float]],
) -> Figure:
    """Three panels: consistency and efficiency, normality, and the bias of the variance.

    Args:
        errors: sample sizes, root mean square errors, and square roots of the Cramér-Rao bound.
        z: studentised estimates, (R,).
        ratios: sample sizes, and mean variance estimates divided by the true variance.
    """
    title = "Maximum likelihood is consistent, efficient and normal; its variance is too small on few rows"
    figure = sheet(title, "Each point: many data sets, fitted exactly", 4.4)
    figure.subplots_adjust(wspace=0.36, left=0.09)
    first, second, third = figure.subplots(1, 3)
    sizes, rms, bounds = errors
    first.plot(sizes, bounds, color=BLUE, label="Cramér-Rao")
    first.plot(sizes, rms, "o", color=VERMILION, label="measured")
    first.set(xscale="log", yscale="log", xlabel="rows", ylabel="rms error of the slope")
    first.set_xticks(list(sizes), [str(size) for size in sizes], fontsize=8)
    first.minorticks_off()
    first.set_yticks([0.05, 0.1, 0.2, 0.4], ["0.05", "0.1", "0.2", "0.4"])
    legend(first, loc="upper right", fontsize=8)
    ordered = np.sort(z)
    quantiles = normal_quantile((np.arange(len(z)) + 0.5) / len(z))
    second.plot([-3.5, 3.5], [-3.5, 3.5], color=GREY, linewidth=1)
    second.plot(quantiles, ordered, ".", color=BLUE, markersize=3)
    second.set(xlabel="quantile of N(0, 1)", ylabel="(slope − truth) / std err")
    few, ratio = ratios
    grid = np.linspace(min(few), max(few), 200)
    third.axhline(1, color=GREY, linewidth=1)
    third.plot(grid, (grid - 2) / grid, color=BLUE, label="(n − 2) / n")
    third.plot(few, ratio, "o", color=VERMILION, label="measured")
    third.set(xlabel="rows", ylabel="mean variance estimate / truth", ylim=(0.5, 1.05))
    legend(third, loc="lower right", fontsize=8)
    return figure
