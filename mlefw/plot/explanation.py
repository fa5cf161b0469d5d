"""The nats that each feature carries, as bars."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREY, SKY, VERMILION, drawn, label, legend, sheet

MOST_BARS = 20
"""Most features in the picture."""


class Rise(Protocol):
    """A rise of the NLL in nats, with its standard error over rows."""

    @property
    def nats(self) -> float:
        """The rise."""

    @property
    def se(self) -> float:
        """Its standard error."""


class Nats(Protocol):
    """The nats of a feature."""

    @property
    def feature(self) -> str:
        """Its name."""

    @property
    def marginal(self) -> Rise:
        """Of permutations among all rows."""

    @property
    def conditional(self) -> Rise:
        """Of permutations among rows with similar other features."""


@drawn
def nats_of_features(features: Sequence[Nats], target: str) -> Figure:
    """Bars of marginal nats with 95 % intervals, and conditional ones as points, the largest first.

    Args:
        features: the features in their order, the first on top.
        target: name of the target.
    """
    shown = features[:MOST_BARS]
    first = shown[0]
    title = f"{label(first.feature)} carries most: {first.marginal.nats:.3g} nats per row of {label(target)}"
    more = f"; {len(shown)} of {len(features)} features" if len(shown) < len(features) else ""
    words = f"Rise of the NLL when rows exchange a feature, with 95 % intervals over rows{more}"
    figure = sheet(title, words, 1.9 + 0.3 * len(shown))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.24)
    at = np.arange(len(shown))[::-1].astype(float)
    nats, half = _ends([one.marginal for one in shown])
    axes.barh(at + 0.17, nats, 0.34, color=SKY, label="marginal: among all rows")
    axes.errorbar(nats, at + 0.17, xerr=half, fmt="none", ecolor=BLUE, elinewidth=1.3, capsize=2)
    nats, half = _ends([one.conditional for one in shown])
    axes.errorbar(
        nats,
        at - 0.2,
        xerr=half,
        fmt="o",
        color=VERMILION,
        elinewidth=1.3,
        capsize=2,
        markersize=4.5,
        label="conditional: given the other features",
    )
    axes.axvline(0, color=GREY, linewidth=0.7)
    axes.set_yticks(at, [label(one.feature, 22) for one in shown])
    axes.set(xlabel="nats per row", ylim=(-0.6, len(shown) - 0.4))
    legend(axes, loc="lower right")
    return figure


def _ends(rises: Sequence[Rise]) -> tuple[np.ndarray, np.ndarray]:
    """The nats, and half of their intervals; 0 where an error is not defined."""
    errors = np.array([rise.se for rise in rises])
    return np.array([rise.nats for rise in rises]), 1.96 * np.nan_to_num(errors)
