"""Three failures: an unbounded likelihood, forecasts of a rare class, and extrapolation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREY, ORANGE, SKY, VERMILION, drawn, legend, sheet
from mlefw.system.number_format import percent

Bands = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""x, the true mean, and lower and upper end of the 90 % interval, each (m,)."""


@drawn
def picture(
    depth: tuple[Sequence[float], Sequence[float], Sequence[float]],
    rare: tuple[Mapping[str, float], float],
    bands: Bands,
) -> Figure:
    """Three panels, one for each failure.

    Args:
        depth: log sigma of a row with a sigma of its own, mean NLL without a floor, and mean NLL with a floor.
        rare: mean forecast of the rare class by loss, and its observed share.
        bands: predictions of a line that was fitted on (−1, 1).
    """
    title = "Three failures: a likelihood without bound, forecasts of another population, a shift"
    figure = sheet(title, "Left: one row with a sigma of its own; middle: mean forecast; right: 90 % interval", 4.4)
    figure.subplots_adjust(wspace=0.36, left=0.09)
    first, second, third = figure.subplots(1, 3)
    first.plot(depth[0], depth[1], "o-", color=VERMILION, label="no floor")
    first.plot(depth[0], depth[2], "s-", color=BLUE, label="with the floor")
    first.set(xlabel="log sigma of one row", ylabel="mean NLL (nats)")
    first.invert_xaxis()
    legend(first, loc="lower left", fontsize=8)
    means, observed = rare
    bars = second.bar(list(means), list(means.values()), color=[BLUE, VERMILION, ORANGE])
    second.bar_label(bars, [percent(mean) for mean in means.values()], fontsize=8.5)
    second.axhline(observed, color="black", linestyle="--", linewidth=1.2, label=f"observed {percent(observed)}")
    second.set(ylabel="mean forecast of the rare class")
    second.set_ylim(0, 1.25 * max(means.values()))
    legend(second, loc="upper left", fontsize=8)
    x, truth, low, high = bands
    third.axvspan(-1, 1, color=GREY, alpha=0.15, linewidth=0, label="rows")
    third.fill_between(x, low, high, color=SKY, alpha=0.6, linewidth=0, label="interval")
    third.plot(x, truth, "--", color="black", label="truth")
    third.set(xlabel="x", ylabel="y")
    legend(third, loc="upper left", fontsize=8)
    return figure
