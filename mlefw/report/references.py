"""What a model is compared with, in words: the null model and the exact estimates."""

from collections.abc import Mapping
from typing import Any

KEYS = {"null": "null", "mle": "baseline", "map": "baseline_map", "ridge": "baseline_ridge"}
"""The null model and the exact estimates, with their keys in `summary.json`."""
EXACT = tuple(KEYS.values())
"""What stands beside a model, by its name in `summary.json`."""

REFERENCES = {"mle": "linear MLE", "map": "linear MAP", "ridge": "linear ridge MAP"}
"""What gaps are measured from, by its name in a `distance`."""


def exact_names(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the exact estimates are called, by their key in a summary."""
    part = _part(summary)
    exact = f"exact, {part}" if part else "exact"
    return {
        "null": "null model (intercept only)",
        "baseline": f"linear MLE ({exact})",
        "baseline_map": f"linear MAP ({exact})",
        "baseline_ridge": f"linear ridge MAP ({', '.join([*_ridge_scale(summary), exact])})",
    }


def _ridge_scale(summary: Mapping[str, Any]) -> list[str]:
    scale = summary.get("baseline_ridge", {}).get("scale")
    return [] if scale is None else [f"prior scale {scale:g}"]


def _part(summary: Mapping[str, Any]) -> str:
    """How many of the features the exact estimates have, where it is not all of them."""
    count = summary.get("baseline_num_features")
    return "" if count is None else f"{count} of {summary['num_features']} features"


def compared(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the model is compared with: the exact estimate, and the null model too where there is no linear MLE."""
    found, reference = [], summary.get("distance", {}).get("reference")
    if reference is not None:
        scale = _ridge_scale(summary) if reference == "ridge" else []
        words = [REFERENCES[reference], *(f"({part})" for part in scale)]
        found.append(("gap", " ".join(words) + (f" on {_part(summary)}" if _part(summary) else "")))
    if reference in (None, "ridge"):
        found.append(("null_gap", "null model"))
    return found


def against(name: str, gap: float, error: float, split: str) -> str:
    """Whether the model beats what it is compared with, in a sentence."""
    amount = f"{abs(gap) if abs(gap) > 1e-12 else 0:.3g} ± {error:.2g} nats per row on {split}"
    if abs(gap) <= 2 * error:
        return f"The model cannot be told from the {name}: they differ by {amount}."
    return f"The model {'beats' if gap < 0 else 'loses to'} the {name} by {amount}."
