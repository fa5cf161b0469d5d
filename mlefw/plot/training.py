"""Training as seen over epochs: the NLL, and how far it is from the exact estimate."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import GREY, SPLITS, drawn, legend, sheet

_NAMES = {"null": "null model", "mle": "linear MLE", "map": "linear MAP"}

History = Sequence[Mapping[str, float]]
Lines = Mapping[str, Mapping[str, float]]


@drawn
def learning_curves(history: History, lines: Lines, best_epoch: int) -> Figure:
    """NLL over epochs, with the exact estimates as flat lines and the kept epoch marked.

    Args:
        history: rows with `epoch` and `<split>/nll_nats`.
        lines: nats by estimate and split.
        best_epoch: the epoch whose state was kept.
    """
    curves = _curves(history)
    watched = "validation" if "validation" in curves else "train"
    figure = sheet(_conclusion(history, lines, watched, best_epoch), "Mean negative log-likelihood after each epoch")
    axes = figure.add_subplot()
    shown: list[float] = []
    for split, (epochs, values) in curves.items():
        axes.plot(epochs, values, color=SPLITS[split], label=split, marker="." if len(epochs) < 3 else "")
        # The first steps from a bad start would squeeze all that matters into one line.
        shown += sorted(values)[: max(1, int(0.98 * len(values)))]
    for name, style in (("null", ":"), ("mle", "--"), ("map", "-.")):
        for split in dict.fromkeys(("train", watched)):
            if split in lines.get(name, {}):
                value = lines[name][split]
                text = f"{_NAMES[name]}, {split}: {value:.3f}"
                axes.axhline(value, color=SPLITS[split], linestyle=style, linewidth=1, label=text)
                shown.append(value)
    _mark(axes, best_epoch)
    finite = [value for value in shown if np.isfinite(value)]
    if finite:
        margin = 0.05 * (max(finite) - min(finite)) or 0.1
        axes.set_ylim(min(finite) - margin, max(finite) + margin)
    axes.set(xlabel="epoch", ylabel="negative log-likelihood (nats per row)")
    legend(axes)
    return figure


@drawn
def gap_curve(history: History, lines: Lines, best_epoch: int, reference: str) -> Figure:
    """NLL minus that of the exact estimate over epochs, on a logarithmic axis (linear about zero where it crosses it).

    Args:
        history: rows with `epoch` and `<split>/nll_nats`.
        lines: nats by estimate and split.
        best_epoch: the epoch whose state was kept.
        reference: the estimate it is measured from, `mle` or `map`.
    """
    curves = {
        split: (epochs, values - lines[reference][split])
        for split, (epochs, values) in _curves(history).items()
        if split in lines[reference]
    }
    name = _NAMES[reference]
    figure = sheet(_reached(curves, best_epoch, name), f"Mean NLL of the model minus that of the exact {name}")
    axes = figure.add_subplot()
    everything = np.concatenate([gap for _, gap in curves.values()])
    everything = everything[np.isfinite(everything)]
    size = np.abs(everything)[np.abs(everything) > 1e-14]
    crosses = bool((everything < -1e-12).any())
    for split, (epochs, gap) in curves.items():
        values = gap if crosses else np.where(gap > 1e-14, gap, np.nan)
        axes.plot(epochs, values, color=SPLITS[split], label=split, marker="." if len(epochs) < 3 else "")
    if crosses:
        least = 10.0 ** np.floor(np.log10(np.quantile(size, 0.1)))
        axes.set_yscale("symlog", linthresh=max(least, 1e-3 * size.max()))
        axes.axhline(0, color=GREY, linewidth=1, linestyle="--", label=name)
    elif size.size:
        axes.set_yscale("log")
    _mark(axes, best_epoch)
    axes.set(xlabel="epoch", ylabel="gap (nats per row)")
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


def _mark(axes: object, best_epoch: int) -> None:
    if best_epoch >= 0:
        axes.axvline(best_epoch, color="0.6", linewidth=1)  # type: ignore[attr-defined]
        axes.annotate(  # type: ignore[attr-defined]
            f" kept: epoch {best_epoch}", (best_epoch, 1), xycoords=("data", "axes fraction"), va="bottom", fontsize=9
        )


def _conclusion(history: History, lines: Lines, split: str, best_epoch: int) -> str:
    kept = [row[f"{split}/nll_nats"] for row in history if row["epoch"] == best_epoch and f"{split}/nll_nats" in row]
    name = next((name for name in ("mle", "map", "null") if split in lines.get(name, {})), None)
    if not kept or name is None:
        return "Training as maximum likelihood"
    gap = lines[name][split] - kept[0]
    if abs(gap) < 1e-9:
        return f"{split.capitalize()} NLL equals that of the {_NAMES[name]}"
    verb = "better than" if gap >= 0 else "worse than"
    return f"{split.capitalize()} NLL is {abs(gap):.3g} nats a row {verb} the {_NAMES[name]}"


def _reached(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], best_epoch: int, name: str) -> str:
    """A model that never undercuts the estimate on the training rows is judged there, any other on watched rows."""
    epochs, gap = curves["train"]
    split = "train"
    if (gap < -1e-9).any() and "validation" in curves:
        split = "validation"
        epochs, gap = curves[split]
    at = np.flatnonzero(epochs == best_epoch)
    value = float(gap[at[0] if len(at) else -1])
    if abs(value) < 1e-9:
        return f"Reaches the {name} on {split} rows (to {max(abs(value), 1e-16):.0e} nats a row)"
    side = "above" if value > 0 else "below"
    return f"Stops {abs(value):.2g} nats a row {side} the {name} on {split} rows"
