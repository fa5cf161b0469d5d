"""References that a model is compared with, the null model and the exact estimates, in words."""

from collections.abc import Mapping
from typing import Any

KEYS = {
    **{"null": "null", "mle": "baseline", "map": "baseline_map", "ridge": "baseline_ridge"},
    "position": "baseline_position",
    **{f"nearest_{count}": f"baseline_nearest_{count}" for count in (1, 4)},
    "longer": "baseline_longer",
}
"""The null model and the exact estimates, with their keys in `summary.json`."""
EXACT = tuple(KEYS.values())
"""Keys of the references in `summary.json`."""

REFERENCES = {"mle": "linear MLE", "map": "linear MAP", "ridge": "linear ridge MAP"}
"""Words for the estimate that gaps are measured from, by its name in `distance`."""


def exact_names(summary: Mapping[str, Any]) -> dict[str, str]:
    """Words for the null model and the exact estimates, by their key in a summary."""
    if has_tables(summary) and _is_of_pixels(summary):
        return _pixel_names(summary)
    if has_tables(summary):
        order = summary.get("baseline_longer", {}).get("order")
        longer = {2: "trigram"}.get(order, f"{order + 1 if order else ''}-gram")
        return {
            "null": "null model (unigram)",
            "baseline": "bigram MLE (exact)",
            "baseline_map": "bigram MAP (exact)",
            "baseline_longer": f"{longer} MAP (exact)",
        }
    part = _part(summary)
    exact = f"exact, {part}" if part else "exact"
    on = {key: f" on {words}" if (words := _features(summary, key)) else "" for key in EXACT}
    return {
        "null": "null model (intercept only)",
        "baseline": f"linear MLE{on['baseline']} ({exact})",
        "baseline_map": f"linear MAP{on['baseline_map']} ({exact})",
        "baseline_ridge": f"linear ridge MAP{on['baseline_ridge']} ({', '.join([*_ridge_scale(summary), exact])})",
    }


def _pixel_names(summary: Mapping[str, Any]) -> dict[str, str]:
    """Words for the null model and the tables of the levels of pixels, by their key in a summary."""
    order = summary.get("baseline_longer", {}).get("order", "")
    names = {
        "null": "null model (shares of levels)",
        "baseline": "MLE by the previous pixel (exact)",
        "baseline_map": "MAP by the previous pixel (exact)",
        "baseline_position": "MAP by position (exact)",
    }
    nearest = {"baseline_nearest_1": 1, "baseline_nearest_4": 4, "baseline_longer": order}
    words = {key: f"{count} nearest pixels" if count != 1 else "nearest pixel" for key, count in nearest.items()}
    return names | {key: f"MAP by the {some} (exact)" for key, some in words.items()}


def _is_of_pixels(summary: Mapping[str, Any]) -> bool:
    return summary.get("observation") == "pixel"


def has_tables(summary: Mapping[str, Any]) -> bool:
    """Whether the exact estimates are tables of the next token."""
    return "order" in summary.get("baseline_map", {})


def reference_name(summary: Mapping[str, Any], reference: str) -> str:
    """Words for the estimate that gaps are measured from, `reference` being its name in `distance`."""
    name = REFERENCES[reference]
    if not has_tables(summary):
        return name
    if _is_of_pixels(summary):
        return f"{name.removeprefix('linear ')} by the previous pixel"
    return name.replace("linear", "bigram")


def _ridge_scale(summary: Mapping[str, Any]) -> list[str]:
    scale = summary.get("baseline_ridge", {}).get("scale")
    return [] if scale is None else [f"prior scale {scale:g}"]


def _features(summary: Mapping[str, Any], key: str) -> str:
    """Words for the features of an exact estimate of arrays; empty for tables."""
    return str((summary.get(key) or {}).get("features", ""))


def _part(summary: Mapping[str, Any]) -> str:
    """Words for the number of features of the exact estimates; empty if it is all of them."""
    count = summary.get("baseline_num_features")
    return "" if count is None else f"{count} of {summary['num_features']} features"


def compared(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key of a gap and name of its reference: the exact estimate, and the null model if there is no linear MLE."""
    found, reference = [], summary.get("distance", {}).get("reference")
    if reference is not None:
        scale = _ridge_scale(summary) if reference == "ridge" else []
        words = [reference_name(summary, reference), *(f"({part})" for part in scale)]
        part = _part(summary) or _features(summary, KEYS[reference])
        found.append(("gap", " ".join(words) + (f" on {part}" if part else "")))
    if reference in (None, "ridge"):
        found.append(("null_gap", "null model"))
    return found


def against(name: str, gap: float, error: float, split: str, unit: str = "nats per row") -> str:
    """A sentence on whether the model is better than a reference; `unit`: of gap and error, in words."""
    amount = f"{abs(gap) if abs(gap) > 1e-12 else 0:.3g} ± {error:.2g} {unit} on {split}"
    if abs(gap) <= 2 * error:
        return f"The model cannot be told from the {name}: they differ by {amount}."
    return f"The model {'beats' if gap < 0 else 'loses to'} the {name} by {amount}."
