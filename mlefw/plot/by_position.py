"""The NLL at each position of rows that are sequences."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREY, ORANGE, drawn, epoch_axis, label, legend, sheet

_FEW = 40
"""Most positions that are marked one by one."""


@drawn
def nll_by_position(lines: Mapping[str, np.ndarray], mean: float, rows: str, observation: str = "position") -> Figure:
    """Mean NLL over rows at each position, of the model and of what it is compared with.

    Args:
        lines: by name the mean NLL in nats at each position, (T,), NaN at one that is never observed; the first is that
            of the model, the others are drawn dashed.
        mean: mean NLL of the model over all observations, in nats.
        rows: description of the observations, for the subtitle.
        observation: what one observation is, in a word.
    """
    model = next(iter(lines.values()))
    figure = sheet(_conclusion(model, mean, observation), f"Mean NLL at each position of a row: {rows}")
    axes = figure.add_subplot()
    mark = "." if len(model) <= _FEW else ""
    for (name, values), colour in zip(lines.items(), (BLUE, GREY, ORANGE), strict=False):
        own = values is model
        axes.plot(
            np.arange(len(values)),
            values,
            "-" if own else "--",
            color=colour,
            marker=mark,
            linewidth=2 if own else 1.3,
            label=label(name, 40),
        )
    axes.axhline(mean, color=BLUE, linewidth=0.8, linestyle=":", label=f"mean of the model: {mean:.4g}")
    epoch_axis(axes.xaxis)
    axes.set(xlabel="position in the row, from 0", ylabel=f"negative log-likelihood (nats per {observation})")
    low, high = axes.get_ylim()
    # Room for the legend above all lines.
    axes.set_ylim(low, high + 0.25 * (high - low))
    legend(axes, loc="upper right", ncols=2)
    return figure


def _conclusion(values: np.ndarray, mean: float, observation: str) -> str:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return "No position has a finite NLL"
    first, last = known[0], known[-1]
    ends = f"{values[first]:#.3g} nats at position {first}"
    ends += f", {values[last]:#.3g} at position {last}" if last > first else ""
    return f"{ends}; {mean:#.3g} nats per {observation} on average"
