"""What terms of a formula add to a distribution parameter, and effects of groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, drawn, label, legend, sheet

MOST_PANELS = 12
"""Most panels in a picture."""
_MOST_NAMES = 30
"""Most groups of which the names are written."""
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
P = TypeVar("P")


@dataclass(frozen=True)
class TermLine:
    """An effect along the values of a column.

    Attributes:
        value: the effect, (n,).
        half: half the width of its interval, (n,); None where it is not known.
        trained: the effect in a trained model, (n,); None without one.
    """

    value: np.ndarray
    half: np.ndarray | None = None
    trained: np.ndarray | None = None


@dataclass(frozen=True)
class TermPanel:
    """What terms add to eta along a column of the data.

    Attributes:
        title: the terms.
        variable: name of the column.
        x: values of the column, (n,); of a category positions of its levels.
        lines: the effect by the level of another column; under "" where there is no other.
        levels: names of the levels of a category; empty for a number.
        rug: values of the column in the training rows at equal shares of the rows.
        is_date: whether values are days since 1970-01-01, which are shown as dates.
    """

    title: str
    variable: str
    x: np.ndarray
    lines: Mapping[str, TermLine]
    levels: tuple[str, ...] = ()
    rug: np.ndarray = field(default_factory=lambda: np.zeros(0))
    is_date: bool = False

    @property
    def reach(self) -> float:
        """The largest difference of effects."""
        return float(np.ptp(np.concatenate([line.value for line in self.lines.values()])))


@dataclass(frozen=True)
class GroupPanel:
    """The effects of groups.

    Attributes:
        title: the term and the effect.
        names: names of the groups.
        effects: predicted effects, (num_groups,).
        half: half the width of their intervals, (num_groups,); None where they are not known.
        sd: the estimated standard deviation of the effects.
    """

    title: str
    names: Sequence[str]
    effects: np.ndarray
    half: np.ndarray | None
    sd: float


@drawn
def term_effects(
    panels: Sequence[TermPanel],
    parameter: str,
    scale: str,
    band: str,
    what: str = "Terms of",
    rows: str = "the training rows",
) -> Figure:
    """The effects of terms on one distribution parameter, each in a panel of its own, with 95 % bands and rugs.

    Args:
        panels: the terms.
        parameter: name of the parameter.
        scale: what the effects add up to, such as log(rate).
        band: how the band was found, for the subtitle.
        what: what has the effects, for the subtitle.
        rows: the rows over whose values the effects range.
    """
    largest = max(panels, key=lambda panel: panel.reach)
    title = f"{label(largest.variable)} moves {label(scale)} most, by {largest.reach:.3g} over {rows}"
    shown, figure = _grid(panels, title, f"{what} {label(parameter)}, less their mean over the rows; {band}")
    low, high = _range(shown)
    for axes, panel in zip(figure.axes, shown, strict=False):
        for color, (name, line) in zip(_COLORS, panel.lines.items(), strict=False):
            _draw(axes, panel, name, line, color)
        axes.axhline(0, color=GREY, linewidth=0.7)
        axes.set_title(label(panel.title, 46), fontsize=10, loc="left")
        axes.set(xlabel=label(panel.variable), ylim=(low, high))
        if panel.levels:
            axes.set_xticks(panel.x, [label(level, 12) for level in panel.levels])
            axes.tick_params(axis="x", rotation=90 if len(panel.levels) > 6 else 0)
            axes.margins(x=0.08)
        else:
            marks = low + 0.03 * (high - low)
            if panel.is_date:
                axes.xaxis.set_major_locator(locator := AutoDateLocator())
                axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            axes.vlines(panel.rug, low, marks, color="#333333", linewidth=0.6, alpha=0.7)
        if len(panel.lines) > 1:
            legend(axes, fontsize=8)
    _label_left(figure, label(scale), len(shown))
    return figure


def _draw(axes: Axes, panel: TermPanel, name: str, line: TermLine, color: str) -> None:
    if panel.levels:
        axes.errorbar(panel.x, line.value, yerr=line.half, fmt="o", color=color, ecolor=GREY, elinewidth=1.2, capsize=2)
        if line.trained is not None:
            axes.plot(panel.x, line.trained, "x", color=VERMILION, markersize=6, zorder=3)
        return
    if line.half is not None:
        axes.fill_between(panel.x, line.value - line.half, line.value + line.half, color=color, alpha=0.18, linewidth=0)
    axes.plot(panel.x, line.value, color=color, linewidth=1.8, label=label(name))
    if line.trained is not None:
        dashes = VERMILION if len(panel.lines) == 1 else color
        axes.plot(panel.x, line.trained, "--", color=dashes, linewidth=1.3)


@drawn
def group_effects(panels: Sequence[GroupPanel], parameter: str, scale: str) -> Figure:
    """The effects of groups on one distribution parameter in order of their size, with 95 % intervals.

    Args:
        panels: the effects.
        parameter: name of the parameter.
        scale: what the effects add up to, such as log(rate).
    """
    largest = max(panels, key=lambda panel: panel.sd)
    title = f"{label(largest.title, 40)}: standard deviation {largest.sd:.3g} of {label(scale)} between groups"
    words = f"Effects of groups on {label(parameter)} with 95 % intervals, given the estimated standard deviations"
    most = max(min(len(panel.names), _MOST_NAMES) for panel in panels)
    shown, figure = _grid(panels, title, words, max(2.6, 0.6 + 0.16 * most), wide=True)
    for axes, panel in zip(figure.axes, shown, strict=False):
        order = np.argsort(panel.effects, kind="stable")
        at = np.arange(len(order))
        half = None if panel.half is None else panel.half[order]
        thin = len(order) > _MOST_NAMES
        axes.axvline(0, color=GREY, linewidth=0.7)
        axes.errorbar(
            panel.effects[order],
            at,
            xerr=half,
            fmt="o",
            color=BLUE,
            ecolor=SKY,
            elinewidth=0.6 if thin else 1.2,
            markersize=2 if thin else 4,
        )
        axes.set_title(label(panel.title, 40), fontsize=10, loc="left")
        axes.set(xlabel=f"effect on {label(scale)}", ylim=(-0.6, len(order) - 0.4))
        if thin:
            axes.set_yticks([])
            axes.set_ylabel(f"{len(order):,} groups in order")
        else:
            axes.set_yticks(at, [label(panel.names[j], 18) for j in order], fontsize=8)
    return figure


def _range(panels: Sequence[TermPanel]) -> tuple[float, float]:
    """One range of effects for all panels, so that they can be compared."""
    low, high = 0.0, 0.0
    for line in (line for panel in panels for line in panel.lines.values()):
        value, half = line.value, np.zeros(1) if line.half is None else line.half
        # A wide band, as of a level that few rows have, must not flatten all curves.
        half = np.minimum(half, 3 * max(float(np.ptp(value)), float(np.median(half))))
        ends = [value - half, value + half, *([] if line.trained is None else [line.trained])]
        low, high = min(low, *(float(end.min()) for end in ends)), max(high, *(float(end.max()) for end in ends))
    room = 0.06 * (high - low) or 1.0
    return low - 1.5 * room, high + room


def _grid(
    panels: Sequence[P], title: str, words: str, height: float = 2.7, wide: bool = False
) -> tuple[Sequence[P], Figure]:
    """The panels that are shown, and a figure with axes for each."""
    shown = panels[:MOST_PANELS]
    more = f"; {len(shown)} of {len(panels)} panels" if len(shown) < len(panels) else ""
    num_columns = min(2, len(shown))
    num_rows = -(-len(shown) // num_columns)
    whole = 1.0 + (height + 0.5) * num_rows
    figure = sheet(title, words + more, whole)
    figure.subplots_adjust(wspace=0.45 if wide else 0.12, hspace=0.8 / height, left=0.16 if wide else 0.115)
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=not wide).ravel()
    for axes in grid[len(shown) :]:
        axes.remove()
    return shown, figure


def _label_left(figure: Figure, text: str, count: int) -> None:
    for axes in figure.axes[: count : min(2, count)]:
        axes.set_ylabel(f"effect on {text}")
