"""Training over epochs: the NLL, and its gap to the exact estimate."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mlefw.plot.style import GREY, SPLITS, drawn, epoch_axis, legend, sheet

NAMES = {"null": "null model", "mle": "linear MLE", "map": "linear MAP", "ridge": "linear ridge MAP"}
"""Words for the exact estimates in the legend, by their names."""

History = Sequence[Mapping[str, float]]
"""Rows of `metrics.csv`, with `epoch` and `<split>/nll_nats`."""
Lines = Mapping[str, Mapping[str, float]]
"""NLL in nats per row of the null model and the exact estimates, by name and split."""
Errors = Mapping[str, float]
"""Standard error of the gap to the exact estimate, by split."""

_Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


@drawn
def learning_curves(
    history: History,
    lines: Lines,
    best_epoch: int,
    errors: Errors | None = None,
    observation: str = "row",
    names: Mapping[str, str] = NAMES,
) -> Figure:
    """NLL over epochs, with the exact estimates as horizontal lines and the kept epoch marked.

    Args:
        history: NLL of each epoch.
        lines: NLL of the exact estimates.
        best_epoch: the epoch whose state was kept.
        errors: standard error of the gap to the exact estimate.
        observation: what one observation is, in a word.
        names: words for the exact estimates.
    """
    curves = _curves(history)
    watched = "validation" if "validation" in curves else "train"
    conclusion = _conclusion(curves, lines, watched, best_epoch, errors or {}, observation, names)
    figure = sheet(conclusion, "Mean negative log-likelihood after each epoch")
    axes = figure.add_subplot()
    shown: list[float] = []
    for split, (epochs, values) in curves.items():
        axes.plot(epochs, values, color=SPLITS[split], label=split, marker="." if len(epochs) < 3 else "")
        # The highest values, of the first steps from a bad start, would compress the rest of the curve.
        shown += sorted(values)[: max(1, int(0.98 * len(values)))]
    for name, style in (("null", ":"), ("mle", "--"), ("map", "-."), ("ridge", "-.")):
        for split in dict.fromkeys(("train", watched)):
            if split in lines.get(name, {}):
                value = lines[name][split]
                text = f"{names[name]}, {split}: {value:.3f}"
                axes.axhline(value, color=SPLITS[split], linestyle=style, linewidth=1, label=text)
                shown.append(value)
    _mark(axes, best_epoch)
    finite = [value for value in shown if np.isfinite(value)]
    if finite:
        margin = 0.05 * (max(finite) - min(finite)) or 0.1
        axes.set_ylim(min(finite) - margin, max(finite) + margin)
    axes.set(xlabel="epoch", ylabel=f"negative log-likelihood (nats per {observation})")
    legend(axes)
    return figure


@drawn
def gap_curve(
    history: History,
    lines: Lines,
    best_epoch: int,
    reference: str,
    errors: Errors | None = None,
    observation: str = "row",
    names: Mapping[str, str] = NAMES,
) -> Figure:
    """NLL minus that of the exact estimate over epochs, on a logarithmic axis (symmetric if it crosses zero).

    Args:
        history: NLL of each epoch.
        lines: NLL of the exact estimates.
        best_epoch: the epoch whose state was kept.
        errors: standard error of the gap.
        reference: the exact estimate, a name in `lines`.
        observation: what one observation is, in a word.
        names: words for the exact estimates.
    """
    curves = {
        split: (epochs, values - lines[reference][split])
        for split, (epochs, values) in _curves(history).items()
        if split in lines[reference]
    }
    name = names[reference]
    conclusion = _reached(curves, best_epoch, name, errors or {}, observation)
    figure = sheet(conclusion, f"Mean NLL of the model minus that of the exact {name}")
    axes = figure.add_subplot()
    everything = np.concatenate([gap for _, gap in curves.values()])
    everything = everything[np.isfinite(everything)]
    size = np.abs(everything)[np.abs(everything) > 1e-14]
    crosses = bool((everything < -1e-12).any())
    for split, (epochs, gap) in curves.items():
        values = gap if crosses else np.where(gap > 1e-14, gap, np.nan)
        axes.plot(epochs, values, color=SPLITS[split], label=split, marker="." if len(epochs) < 3 else "")
    if crosses:
        least = max(np.quantile(size, 0.1), 1e-2 * size.max())
        axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(least)))
        axes.axhline(0, color=GREY, linewidth=1, linestyle="--", label=name)
    elif size.size:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(10 ** np.floor(np.log10(size.min())), 10 ** np.ceil(np.log10(size.max()) + 1e-9))
    _mark(axes, best_epoch)
    axes.set(xlabel="epoch", ylabel=f"gap (nats per {observation})")
    legend(axes)
    return figure


def _curves(history: History) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    curves = {}
    for split in ("train", "validation"):
        points = [(row["epoch"], row[f"{split}/nll_nats"]) for row in history if f"{split}/nll_nats" in row]
        if points:
            epochs, values = np.array(points, dtype=float).T
            curves[split] = (epochs, values)
    return curves


def _mark(axes: Axes, best_epoch: int) -> None:
    epoch_axis(axes.xaxis)
    axes.axvline(best_epoch, color="0.6", linewidth=1)
    left, right = axes.get_xlim()
    side = "right" if best_epoch > (left + right) / 2 else "left"
    at, kept = (best_epoch, 1), f"epoch {best_epoch}" if best_epoch >= 0 else "the start"
    axes.annotate(f" kept: {kept} ", at, xycoords=("data", "axes fraction"), va="bottom", ha=side, fontsize=9)


def _conclusion(
    curves: _Curves,
    lines: Lines,
    split: str,
    best_epoch: int,
    errors: Errors,
    observation: str,
    names: Mapping[str, str],
) -> str:
    name = next((name for name in ("mle", "map", "ridge", "null") if split in lines.get(name, {})), None)
    if split not in curves or name is None:
        return "Training as maximum likelihood"
    gap = _kept(curves[split], best_epoch) - lines[name][split]
    if abs(gap) < 1e-9:
        return f"{split.capitalize()} NLL equals that of the {names[name]}"
    amount = f"{abs(gap):.3g}" + (f" ± {errors[split]:.2g}" if split in errors and name != "null" else "")
    amount += f" nats a {observation} {'better' if gap < 0 else 'worse'}"
    return f"{split.capitalize()} NLL is {amount} than the {names[name]}"


def _reached(curves: _Curves, best_epoch: int, name: str, errors: Errors, observation: str) -> str:
    """The title: the gap on training rows, or on validation rows if the training NLL was ever below the estimate."""
    split = "train"
    if (curves["train"][1] < -1e-9).any() and "validation" in curves:
        split = "validation"
    value = _kept(curves[split], best_epoch)
    where = f"the {name} on {'training' if split == 'train' else split} rows"
    if abs(value) < 1e-9:
        return f"Reaches {where} (to {max(abs(value), 1e-16):.0e} nats a {observation})"
    error = f" ± {errors[split]:.2g}" if split in errors and split != "train" else ""
    return f"Stops {abs(value):.2g}{error} nats a {observation} {'above' if value > 0 else 'below'} {where}"


def _kept(curve: tuple[np.ndarray, np.ndarray], best_epoch: int) -> float:
    epochs, values = curve
    return float(values[int(np.argmin(np.abs(epochs - best_epoch)))])
