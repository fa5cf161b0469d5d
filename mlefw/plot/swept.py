"""NLL over the settings of a sweep: one setting at a time, and all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlefw.plot.style import BLUE, GREY, VERMILION, drawn, label, sheet

Floats = NDArray[np.float64]

MAX_VALUES = 24
"""Most names on an axis of values that are no numbers; further ones share the last place."""

MAX_AXES = 10
"""Most settings in a picture of all at once."""

_LOGARITHMIC = 20.0
"""Ratio of the largest and the least value of a setting from which on its axis is logarithmic."""


@drawn
def by_setting(
    name: str, values: Sequence[Any], nats: Sequence[float], split: str, unit: str = "nats per row"
) -> Figure:
    """NLL of each candidate over one setting, with a line through the least at each value.

    Args:
        name: name of the setting.
        values: its value in each candidate.
        nats: mean NLL of each candidate, in nats.
        split: the split that the NLL was measured on.
        unit: of the NLL, in words.
    """
    place, ticks, is_number = _places(values)
    known, top = _below(nats)
    best = int(np.argmin(known))
    figure = sheet(
        f"{label(name, 40)}: the least NLL is at {label(_text(values[best]), 30)}",
        f"Each of {len(values)} candidates on {split} rows, and the least at each value",
        4.2,
    )
    axes = figure.add_subplot()
    inside = known <= top
    axes.plot(place[inside], known[inside], "o", color=BLUE, alpha=0.6, markersize=5)
    axes.plot(place[~inside], np.full((~inside).sum(), top), "^", color=GREY, markersize=6)
    at = np.unique(place)
    least = np.array([known[place == one].min() for one in at])
    axes.plot(at, np.minimum(least, top), "-" if is_number else "_", color=BLUE, markersize=24, linewidth=1)
    axes.plot(place[best], known[best], "o", color=VERMILION, markersize=8)
    axes.set(xlabel=label(name, 60), ylabel=f"NLL on {split} rows ({unit})")
    if is_number and at[0] > 0 and at[-1] / at[0] >= _LOGARITHMIC:
        axes.set_xscale("log")
    elif not is_number:
        axes.set_xticks(range(len(ticks)), [label(tick, 18) for tick in ticks], rotation=25 if len(ticks) > 5 else 0)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        figure.subplots_adjust(bottom=0.24 if len(ticks) > 5 else 0.16)
    _say_above(axes, int((~inside).sum()))
    return figure


@drawn
def parallel(
    settings: Mapping[str, Sequence[Any]], nats: Sequence[float], split: str, unit: str = "nats per row"
) -> Figure:
    """A line for each candidate through its values of all settings to its NLL (parallel coordinates; Inselberg, 1985).

    Args:
        settings: the value in each candidate, by name of the setting.
        nats: mean NLL of each candidate, in nats.
        split: the split that the NLL was measured on.
        unit: of the NLL, in words.
    """
    names = list(settings)[:MAX_AXES]
    known, top = _below(nats)
    order, best = np.argsort(known)[::-1], int(np.argmin(known))
    some = "" if len(names) == len(settings) else f", the first {len(names)} of {len(settings)} settings"
    chosen = ", ".join(f"{label(name, 24)} {label(_text(settings[name][best]), 16)}" for name in names[:3])
    figure = sheet(
        f"The least NLL: {chosen}", f"A line for each of {len(known)} candidates, the best in red{some}", 4.8
    )
    figure.subplots_adjust(left=0.09, right=0.91, bottom=0.14)
    axes = figure.add_subplot()
    columns = [_unit_places(settings[name]) for name in names]
    low, high = float(known.min()), min(top, float(known[known < np.inf].max()))
    shown = (np.minimum(known, high) - low) / (high - low) if high > low else np.full(len(known), 0.5)
    columns.append((shown, [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]))
    lines = np.stack([place for place, _ in columns], axis=1)
    strength = 1 - np.argsort(np.argsort(known)) / max(1, len(known) - 1)
    for one in order:
        axes.plot(lines[one], color=BLUE, alpha=0.08 + 0.6 * float(strength[one]) ** 2, linewidth=1)
    axes.plot(lines[best], color=VERMILION, linewidth=2.2)
    for position, (_, ticks) in enumerate(columns):
        axes.axvline(position, color=GREY, linewidth=0.8)
        for at, text in ticks:
            background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axes.text(position + 0.03, at, label(text, 14), fontsize=8.5, va="center", bbox=background)
    axes.set_xticks(range(len(columns)), [*(label(name, 20) for name in names), f"NLL ({unit})"], fontsize=8.5)
    axes.set(xlim=(-0.05, len(columns) - 0.75), ylim=(-0.05, 1.05), yticks=[])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _below(nats: Sequence[float]) -> tuple[Floats, float]:
    """The NLL of each candidate, and the largest that is drawn, so that a few bad ones do not hide the others."""
    known = np.nan_to_num(np.asarray(nats, dtype=float), nan=np.inf)
    finite = known[known < np.inf]
    least, middle = float(finite.min()), float(np.median(finite))
    top = least + 6 * (middle - least) if len(finite) > 4 else float(finite.max())
    return known, min(top, float(finite.max()))


def _places(values: Sequence[Any]) -> tuple[Floats, list[str], bool]:
    """Where values stand on an axis, the names of places, and whether they are numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=float), [], True
    ticks = list(dict.fromkeys(_text(value) for value in sorted(values, key=_order)))
    if len(ticks) > MAX_VALUES:
        ticks = [*ticks[: MAX_VALUES - 1], "others"]
    return (
        np.array([ticks.index(_text(v)) if _text(v) in ticks else len(ticks) - 1 for v in values], float),
        ticks,
        False,
    )


def _unit_places(values: Sequence[Any]) -> tuple[Floats, list[tuple[float, str]]]:
    """Where values stand between 0 and 1, and the names of some places."""
    place, ticks, is_number = _places(values)
    if not is_number:
        size = max(1, len(ticks) - 1)
        return place / size, [(position / size, tick) for position, tick in enumerate(ticks)]
    whole = np.unique(place)
    scale = np.log if whole[0] > 0 and whole[-1] / whole[0] >= _LOGARITHMIC else np.asarray
    low, high = float(scale(whole[0])), float(scale(whole[-1]))
    width = high - low or 1.0
    marked = whole if len(whole) <= 6 else whole[[0, -1]]
    return (scale(place) - low) / width, [(float((scale(one) - low) / width), f"{one:.4g}") for one in marked]


def _order(value: Any) -> tuple[int, Any]:
    """Numbers before texts, each in their order."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value)) if is_number else (1, _text(value))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say_above(axes: Axes, count: int) -> None:
    if count:
        one = "one candidate has" if count == 1 else f"{count} candidates have"
        axes.text(0.99, 0.99, f"▲ {one} more", transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=GREY)
