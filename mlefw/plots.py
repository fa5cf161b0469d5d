"""Pictures: pure functions from numbers to matplotlib figures, readable at 800 pixels and by the colour-blind."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

_COLORS = {"train": "#0072B2", "validation": "#D55E00", "test": "#009E73"}
_NAMES = {"null": "null model", "mle": "linear MLE", "map": "linear MAP"}


def learning_curves(
    history: Sequence[Mapping[str, float]], lines: Mapping[str, Mapping[str, float]], best_epoch: int
) -> Figure:
    """NLL over epochs, with the exact estimates as dashed lines and the kept epoch marked.

    Args:
        history: rows with `epoch` and `<split>/nll_nats`.
        lines: nats by estimate and split.
        best_epoch: the epoch whose state was kept.
    """
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    shown: list[float] = []
    for split in ("train", "validation"):
        values = [row[f"{split}/nll_nats"] for row in history if f"{split}/nll_nats" in row]
        if len(values) == len(epochs) and values:
            axes.plot(epochs, values, color=_COLORS[split], label=split)
            shown += sorted(values)[: max(1, int(0.98 * len(values)))]
    watched = "validation" if any("validation/nll_nats" in row for row in history) else "train"
    for name, style in (("null", ":"), ("mle", "--"), ("map", "-.")):
        for split in dict.fromkeys(("train", watched)):
            if split in lines.get(name, {}):
                value = lines[name][split]
                label = f"{_NAMES[name]}, {split}: {value:.3f}"
                axes.axhline(value, color=_COLORS[split], linestyle=style, linewidth=1, label=label)
                shown.append(value)
    if any(row["epoch"] == best_epoch for row in history):
        axes.axvline(best_epoch, color="0.6", linewidth=1)
        kept = f"epoch {best_epoch}" if best_epoch >= 0 else "the start"
        axes.annotate(f" kept: {kept}", (best_epoch, 1), xycoords=("data", "axes fraction"), va="top")
    margin = 0.05 * (max(shown) - min(shown)) or 0.1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set(
        xlabel="epoch",
        ylabel="negative log-likelihood (nats per row)",
        title=_title(history, lines, watched, best_epoch),
    )
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _title(
    history: Sequence[Mapping[str, float]], lines: Mapping[str, Mapping[str, float]], split: str, best_epoch: int
) -> str:
    kept = [row[f"{split}/nll_nats"] for row in history if row["epoch"] == best_epoch and f"{split}/nll_nats" in row]
    name = next((name for name in ("mle", "map", "null") if split in lines.get(name, {})), None)
    if not kept or name is None:
        return "Training as maximum likelihood"
    gap = lines[name][split] - kept[0]
    verb = "better than" if gap >= 0 else "worse than"
    return f"{split.capitalize()} NLL is {abs(gap):.3g} nats a row {verb} the {_NAMES[name]}"
