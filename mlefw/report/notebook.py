"""A trained model as a notebook shows it: the verdict, the NLL beside the exact estimates, and the warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlefw.report.page import Table, rendered
from mlefw.report.run import about, nll_table, other_warnings
from mlefw.report.sentences import verdict


def run_html(summary: Mapping[str, Any], path: str) -> str:
    """A run in HTML, without scripts and in the colours of the page around it.

    Args:
        summary: the content of `summary.json`.
        path: where the run is.
    """
    if summary.get("status") == "failed":
        return _html(f"The run failed: {summary.get('reason', 'it says not why')}", Table([], []), path)
    words = verdict(summary) or "There is no exact estimate to be compared with."
    return _html(words, nll_table(summary), f"{about(summary)}; {path}", other_warnings(summary))


def model_html(facts: Mapping[str, Any]) -> str:
    """A model without a summary in HTML: what is known of it, by name."""
    return _html("A trained model", Table([], []), ", ".join(f"{name} {value}" for name, value in facts.items()))


def _html(words: str, table: Table, note: str, warnings: Sequence[str] = ()) -> str:
    return rendered("notebook.html", verdict=words, table=table, about=note, warnings=warnings)
