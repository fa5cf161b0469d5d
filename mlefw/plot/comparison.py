"""Comparison of the NLL of several runs."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mlefw.plot.style import BLUE, GREY, VERMILION, drawn, label, sheet

MAX_RUNS = 40
"""Most runs in a picture."""


@drawn
def comparison(
    names: Sequence[str], nats: Sequence[float], errors: Sequence[float], split: str, unit: str = "nats per row"
) -> Figure:
    """NLL of runs ± two standard errors, the best on top.

    Args:
        names: names of the runs, best first.
        nats: NLL of each run, in nats.
        errors: standard error of each NLL, 0 if not known.
        split: the split that the NLL was measured on.
        unit: of the NLL, in words.
    """
    count = min(len(names), MAX_RUNS)
    title = f"Least NLL on {split} rows: {label(names[0], 40)} ({nats[0]:.4f} {unit.replace(' per ', ' a ')})"
    some = "" if count == len(names) else f", the first {count} of {len(names)} runs"
    figure = sheet(title, f"Mean NLL ± 2 standard errors{some}", 1.6 + 0.26 * count)
    figure.subplots_adjust(left=0.34)
    axes = figure.add_subplot()
    at = range(count)
    axes.errorbar(nats[:count], at, xerr=[2 * e for e in errors[:count]], fmt="none", ecolor=GREY, elinewidth=1)
    axes.plot(nats[1:count], at[1:], "o", color=BLUE)
    axes.plot(nats[0], 0, "o", color=VERMILION)
    axes.set_yticks(at, [label(name, 34) for name in names[:count]], fontsize=8.5)
    axes.set(xlabel=f"negative log-likelihood on {split} rows ({unit})", ylim=(count - 0.4, -0.6))
    return figure
