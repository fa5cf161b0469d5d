"""The cost of held-out text over training size, and the divergence from a known source."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREEN, GREY, ORANGE, VERMILION, drawn, legend, sheet

_COLOURS = {"unigram": GREY, "bigram": BLUE, "trigram": GREEN, "transformer": VERMILION}
_MARKS = {"unigram": "s", "bigram": "o", "trigram": "^", "transformer": "D"}
# A trigram whose prior finds that pairs suffice lies on the bigram: that one is a ring around it.
_SIZES = {"unigram": 5, "bigram": 9, "trigram": 4, "transformer": 5}

Line = Mapping[str, tuple[float, float]]
"""By model a value and its standard error."""


@drawn
def picture(
    text: tuple[Sequence[int], Sequence[Line]],
    source: tuple[Sequence[int], Sequence[Line], Sequence[Line], Sequence[float]],
) -> Figure:
    """Bits per byte of a text beside the divergence from a Markov chain, both over the number of training tokens.

    Args:
        text: numbers of training characters, and for each the bits per byte of each model.
        source: numbers of training tokens; for each the excess NLL of each model on held-out text; the mean KL
            divergence of tables over many training texts; and what theory expects of the table of pairs.
    """
    figure = sheet(
        "The cost of the next token, and how much of it is divergence from the truth",
        "Left: Shakespeare, held out. Right: a Markov chain, excess NLL (marks, ± 2 se) and exact KL, mean (lines)",
        4.9,
    )
    figure.subplots_adjust(wspace=0.28)
    left, right = figure.subplots(1, 2)
    sizes, bits = text
    for name in bits[0]:
        mean, error = _columns(bits, name)
        left.errorbar(sizes, mean, 2 * error, capsize=2, **_style(name))
    left.set(xscale="log", xlabel="training characters", ylabel="bits per byte")
    left.set_ylim(top=left.get_ylim()[1] + 0.35)
    legend(left, loc="upper center", ncols=2)
    sizes, excess, average, predicted = source
    for name in excess[0]:
        mean, error = _columns(excess, name)
        # On a logarithmic axis an interval that reaches below zero ends at the axis.
        low = np.minimum(2 * error, 0.9 * np.abs(mean))
        right.errorbar(sizes, mean, (low, 2 * error), linestyle="none", capsize=2, **_style(name))
    for name in average[0]:
        right.plot(sizes, _columns(average, name)[0], color=_COLOURS[name], linewidth=1.2)
    right.plot(sizes, predicted, "--", color=ORANGE, label="K (K − 1) / 2n")
    right.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="nats per token above the truth")
    legend(right, loc="lower left", fontsize=8)
    return figure


def _style(name: str) -> dict[str, Any]:
    face = "none" if name == "bigram" else _COLOURS[name]
    shape = {"marker": _MARKS[name], "markersize": _SIZES[name], "markerfacecolor": face}
    return {"color": _COLOURS[name], "label": name, **shape}


def _columns(lines: Sequence[Line], name: str) -> tuple[np.ndarray, np.ndarray]:
    mean, error = np.array([line[name] for line in lines]).T
    return mean, error
