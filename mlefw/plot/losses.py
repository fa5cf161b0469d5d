"""Losses as negative logarithms of densities."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREEN, VERMILION, drawn, legend, sheet


@drawn
def losses(residual: np.ndarray, lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """NLL over residuals with the loss on top of it, and the density exp(−NLL).

    Args:
        residual: residuals, (n,).
        lines: by name of the loss, the NLL of its head, and the loss scaled to the NLL, each (n,).
    """
    title = "A loss is a density: it says which errors are believed to be likely"
    figure = sheet(title, "Left: NLL as a line, the loss (scaled, shifted) as dots; right: exp(−NLL)", 4.8)
    figure.subplots_adjust(wspace=0.25, bottom=0.25)
    left, right = figure.subplots(1, 2)
    for (name, (nll, loss)), color in zip(lines.items(), (BLUE, VERMILION, GREEN), strict=False):
        head = {"MSE": "Gaussian", "MAE": "Laplace"}.get(name, name)
        left.plot(residual, nll, color=color, label=f"NLL, {head}")
        left.plot(residual[::20], (loss + nll[0] - loss[0])[::20], "o", color=color, markersize=4, label=f"{name} loss")
        right.plot(residual, np.exp(-nll), color=color, label=head)
    left.set(xlabel="residual", ylabel="NLL (nats)")
    low, high = left.get_ylim()
    left.set_ylim(low, low + 0.6 * (high - low))
    right.set(xlabel="residual", ylabel="density")
    right.set_ylim(bottom=0)
    legend(left, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8)
    legend(right, loc="upper right")
    return figure
