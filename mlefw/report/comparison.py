"""The report of a comparison of runs."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlefw.console import model_name, number, verdict
from mlefw.report.page import Page, Picture, Row, Section, Table


def comparison_report(summaries: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> str:
    """The report as HTML.

    Args:
        summaries: of the runs, ranked, each with `run_dir` and, where it finished, `ranked_by`.
        pictures: of them all.
    """
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    about = f"{len(finished)} finished of {len(summaries)} runs"
    if not finished:
        words = "No run has finished."
    else:
        best, split = finished[0], finished[0]["ranked_by"]
        nats = number(best["metrics"][split].get("nll_nats"))
        words = f"{_name(best)} has the least NLL on {split} rows: {nats} nats per row. {verdict(best)}"
    sections = [Section("Ranking", [_ranking(summaries)], pictures)]
    sections += [Section("Figures of each run", [_figures(finished)])] if finished else []
    seen = dict.fromkeys(f"{_name(s)}: {text}" for s in summaries for text in s.get("warnings", ()))
    return Page("mlefw comparison", words, about, sections, list(seen), f"mlefw {version('mlefw')}").html()


def _name(summary: Mapping[str, Any]) -> str:
    return Path(summary["run_dir"]).name


def _ranking(summaries: Sequence[Mapping[str, Any]]) -> Table:
    words = ("head", "prior", "model", "seed")
    header = ["run", *words, "nats per row", "± s.e.", "bits", "gap to the exact estimate", "skill"]
    rows = []
    for position, summary in enumerate(summaries):
        cells = [str(summary.get(word, "")) for word in words]
        if summary["status"] != "finished":
            rows.append(Row(_name(summary), [*cells, summary["status"], *[""] * 4]))
            continue
        split, distance = summary["ranked_by"], summary.get("distance", {})
        cells[words.index("model")] = model_name(summary, split)
        figures = summary["metrics"][split]
        values = [figures.get(name) for name in ("nll_nats", "nll_se", "nll_bits")]
        values += [distance.get(name, {}).get(split) for name in ("gap_nats", "skill")]
        rows.append(Row(_name(summary), [*cells, *(number(value) for value in values)], strong=position == 0))
    return Table(header, rows, num_text=len(words), file="the summaries")


def _figures(finished: Sequence[Mapping[str, Any]]) -> Table:
    split = finished[0]["ranked_by"]
    names = list(dict.fromkeys(name for summary in finished for name in summary["metrics"][split]))
    rows = [Row(_name(s), [number(s["metrics"][split].get(name)) for name in names]) for s in finished]
    return Table(["run", *names], rows, f"on {split} rows", file="the summaries")
