"""The report of a comparison of runs."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlefw.report.observation import nats
from mlefw.report.page import Page, Picture, Row, Section, Table
from mlefw.report.sentences import model_name, verdict
from mlefw.system.number_format import number, robust_difference

_LABELS = ("head", "prior", "model", "loss", "seed")
_BESIDE = {"gap to MLE": "gap_nats", "skill": "skill"}
_CALIBRATION = ("accuracy", "coverage_90", "pit_rmse", "ece_15")


def comparison_report(summaries: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> str:
    """The report of a comparison as HTML.

    Args:
        summaries: summaries of the runs, ranked, each with `run_dir` and, if it finished, `ranked_by`.
        pictures: pictures of the comparison.
    """
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    about = f"{len(finished)} finished of {len(summaries)} runs"
    if not finished:
        words = "No run has finished."
    else:
        best, split = finished[0], finished[0]["ranked_by"]
        least = f"{number(best['metrics'][split].get('nll_nats'))} {nats(best)}"
        words = f"{_name(best)} has the least NLL on {named(split)} rows: {least}."
        words = " ".join(part for part in (words, ahead(finished), verdict(best)) if part)
    sections = [Section("Ranking", [_ranking(summaries)], pictures)]
    sections += [Section("Figures of each run", [_figures(finished)])] if finished else []
    seen = dict.fromkeys(f"{_name(s)}: {text}" for s in summaries for text in s.get("warnings", ()))
    return Page("mlefw comparison", words, about, sections, list(seen), f"mlefw {version('mlefw')}").html()


def named(split: str) -> str:
    """A split in words."""
    return split.replace("_", "-")


def _name(summary: Mapping[str, Any]) -> str:
    return Path(summary["run_dir"]).name


def labels(summaries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The settings in which runs differ, at least the head; and the other settings with their common values."""
    finished = [{"loss": "plain", **summary} for summary in summaries if summary["status"] == "finished"]
    differ = [n for n in _LABELS if n == "head" or len(finished) < 2 or len({str(s.get(n)) for s in finished}) > 1]
    known = finished[0] if finished else {}
    common = [f"{n} {known[n]}" for n in _LABELS if n in known.keys() - differ and known[n] != "plain"]
    return [n for n in differ if any(s.get(n) != "plain" for s in finished)] or ["head"], common


def columns(finished: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the columns of the ranking: NLL, gaps, and the calibration figures that some run has."""
    known = {name for summary in finished for name in summary["metrics"][summary["ranked_by"]]}
    behind = ["behind", "± paired"] if any("behind" in summary for summary in finished) else []
    return [
        *_leading(finished[0] if finished else {}),
        *behind,
        *_BESIDE,
        *(name for name in _CALIBRATION if name in known),
    ]


def _leading(summary: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the NLL, and their keys among the figures."""
    return {nats(summary): "nll_nats", "± s.e.": "nll_se"}


def values(summary: Mapping[str, Any], columns: Sequence[str]) -> list[float | None]:
    """The figures of a run in the order of the columns, None where it has none."""
    split, distance = summary["ranked_by"], summary.get("distance", {})
    figures: Mapping[str, Any] = summary["metrics"][split]
    known = {**figures, **{name: figures.get(key) for name, key in _leading(summary).items()}}
    known |= {name: distance.get(key, {}).get(split) for name, key in _BESIDE.items()}
    known |= dict(zip(("behind", "± paired"), summary.get("behind", ()), strict=False))
    return [known.get(name) for name in columns]


def ahead(ranked: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on whether the first run is better than the second; empty if they are not on the same rows."""
    if len(ranked) < 2 or "behind" not in ranked[1]:
        return ""
    split = ranked[0]["ranked_by"]
    behind, spread = ranked[1]["behind"]
    mean, error, without = robust_difference(behind, spread, ranked[1].get("decisive"))
    amount = f"{abs(mean):.3g} ± {error:.2g} {nats(ranked[0])} on the same {named(split)} rows (paired){without}"
    first, second = _name(ranked[0]), _name(ranked[1])
    if abs(mean) <= 2 * error:
        return f"{first} cannot be told from {second}: they differ by {amount}."
    return f"{first} {'is ahead of' if mean > 0 else 'is behind'} {second} by {amount}."


def _ranking(summaries: Sequence[Mapping[str, Any]]) -> Table:
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    words = [n for n in _LABELS if any(s.get(n, "plain") != "plain" for s in summaries)]
    shown, rows = columns(finished), []
    for position, summary in enumerate(summaries):
        cells = [str(summary.get(word, "")) for word in words]
        if summary["status"] != "finished":
            rows.append(Row(_name(summary), [*cells, summary["status"], *[""] * (len(shown) - 1)]))
            continue
        if "model" in words:
            cells[words.index("model")] = model_name(summary, summary["ranked_by"])
        numbers = [number(value) for value in values(summary, shown)]
        rows.append(Row(_name(summary), [*cells, *numbers], strong=position == 0))
    return Table(["run", *words, *shown], rows, num_text=len(words), file="the summaries")


def _figures(finished: Sequence[Mapping[str, Any]]) -> Table:
    split = finished[0]["ranked_by"]
    names = list(dict.fromkeys(name for summary in finished for name in summary["metrics"][split]))
    rows = [Row(_name(s), [number(s["metrics"][split].get(name)) for name in names]) for s in finished]
    return Table(["run", *names], rows, f"on {named(split)} rows", file="the summaries")
