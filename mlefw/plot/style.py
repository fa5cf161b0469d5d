"""Style of all pictures: colours, fonts, position of the title, and escaping of text from data."""

import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlefw.distribution.reference import binomial_quantile

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#666666",
)
"""The palette of Okabe and Ito (2008), and a grey."""

SPLITS: Mapping[str, str] = {"train": BLUE, "validation": VERMILION, "test": GREEN}

FEW = 30
"""Number of rows below which no picture claims calibration, because a departure could not be detected."""

_STYLE: Any = {
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_P = ParamSpec("_P")


def drawn(picture: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Decorator that draws with `_STYLE`, independent of the user's matplotlibrc, which could pass names to LaTeX."""

    @functools.wraps(picture)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return picture(*args, **kwargs)

    return wrapper


class Sheet(Figure):
    """A figure that a notebook shows: matplotlib's own needs pyplot for that, and with it a state of the process."""

    def _repr_png_(self) -> bytes:
        return png(self)


def sheet(title: str, subtitle: str, height: float = 5.0) -> Figure:
    """An empty figure 800 pixels wide, with the conclusion as title and what is shown as subtitle; height in inches."""
    figure = Sheet(figsize=(8, height), dpi=100)
    # Non-breaking spaces keep "p = 0.04" in one line.
    whole = title.replace(" = ", "\u00a0=\u00a0")
    lines = [line.replace("\u00a0", " ") for line in textwrap.wrap(whole, 76)[:2]]
    figure.suptitle("\n".join(lines), x=0.02, y=1 - 0.1 / height, ha="left", va="top", fontsize=12.5, weight="bold")
    depth = 0.1 + 0.25 * len(lines) + 0.03
    figure.text(0.02, 1 - depth / height, subtitle, ha="left", va="top", fontsize=9, color=GREY)
    figure.subplots_adjust(left=0.115, right=0.965, top=1 - (depth + 0.42) / height, bottom=0.52 / height)
    return figure


def label(name: str, limit: int = 28) -> str:
    """A name from data as a picture shows it: shortened, printable, and not interpreted as mathematics.

    Matplotlib interprets text between two dollar signs as TeX, unless they are escaped.
    """
    plain = "".join(c if c.isprintable() else " " for c in str(name)).strip()
    short = plain if len(plain) <= limit else plain[: limit - 1] + "…"
    return short.replace("$", r"\$")


def p_text(p: float) -> str:
    """A p-value as text."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def binomial_band(count: float, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central 95 % interval of an observed share among `count` rows, for each true share: two arrays like `share`."""
    n = max(1, round(count))
    return binomial_quantile(0.025, n, share) / n, binomial_quantile(0.975, n, share) / n


def percent_axis(axis: Any, steps: int = 5) -> None:
    """Set even ticks from 0 to 100 %."""
    ticks = np.linspace(0, 1, steps + 1)
    axis.set_ticks(ticks, [f"{round(100 * tick)} %" for tick in ticks])


def epoch_axis(axis: Any) -> None:
    """Set ticks at whole numbers."""
    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def legend(axes: Axes, **where: Any) -> None:
    """Draw a legend on a translucent background, so that lines do not cross its text."""
    axes.legend(**{"loc": "best", "frameon": True, "framealpha": 0.85, "edgecolor": "none", **where})


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names in a script that the font lacks are drawn as boxes: do not warn of it.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
