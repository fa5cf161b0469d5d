"""The confusion matrix: which class is forecast where another one is observed."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mlefw.plot.style import GREY, drawn, label, sheet
from mlefw.system.number_format import percent

MAX_CLASSES = 20
"""Most classes in a picture: more would be too small to be read."""

_DARK = 0.6
"""Share from which on a cell is so dark that its text is white."""


@drawn
def confusion(count: np.ndarray, names: Sequence[str], rows: str) -> Figure:
    """Counts of the observed class (downwards) and the likeliest forecast class (across), coloured by share.

    Args:
        count: Σ w by observed and forecast class, (K, K).
        names: names of the classes, (K,).
        rows: description of the observations, for the subtitle.
    """
    size = len(names)
    whole = count.sum(1, keepdims=True)
    share = np.divide(count, whole, out=np.zeros_like(count), where=whole > 0)
    figure = sheet(_conclusion(count, names), f"Observations by observed and forecast class, {rows}", 7.4)
    axes = figure.add_subplot()
    own, height = np.eye(size, dtype=bool), figure.get_figheight()
    for place, cells, colours, word in ((0.87, own, "Blues", "right"), (0.9, ~own, "Oranges", "wrong")):
        shown = np.ma.array(share, mask=~cells | (count == 0))
        image = axes.imshow(shown, cmap=matplotlib.colormaps[colours], norm=Normalize(0, 1), aspect="auto")
        bar = figure.colorbar(image, cax=figure.add_axes((place, 0.3, 0.022, 0.4)))
        bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"] if word == "wrong" else ["", "", ""])
        bar.ax.tick_params(length=0, labelsize=8.5)
        bar.ax.set_title(word, fontsize=8.5, rotation=90)
    bar.set_label("share of the observed class")
    _write(axes, count, share)
    short = [label(name, 14) for name in names]
    turned = max(map(len, short)) > 4
    room = 0.075 * max(map(len, short))
    figure.subplots_adjust(left=0.09 + room / 8, right=0.85, bottom=(0.75 + (0.7 * room if turned else 0)) / height)
    axes.set_xticks(range(size), short, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(size), short)
    axes.set(xlabel="likeliest class of the forecast", ylabel="observed class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(1, size) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, size) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    return figure


def _write(axes: Axes, count: np.ndarray, share: np.ndarray) -> None:
    """Write the counts into their cells; a count of zero is left out."""
    font = 10 if len(count) <= 10 else 7
    for i, j in np.argwhere(count > 0).tolist():
        colour = "white" if share[i, j] >= _DARK else "#222222" if i == j or share[i, j] >= 0.02 else GREY
        axes.text(j, i, f"{count[i, j]:,.6g}", ha="center", va="center", fontsize=font, color=colour)


def _conclusion(count: np.ndarray, names: Sequence[str]) -> str:
    """The title: the share that is right, and the commonest confusion."""
    whole = float(count.sum())
    right = percent(float(np.trace(count)) / whole) if whole else "none"
    wrong = count - np.diag(np.diag(count))
    if not wrong.any():
        return f"{right} are classified right"
    i, j = divmod(int(wrong.argmax()), len(names))
    much = f"{wrong[i, j]:,.6g} of {count[i].sum():,.6g}"
    return f"{right} are classified right; most often {label(names[i], 20)} is taken for {label(names[j], 20)} ({much})"
