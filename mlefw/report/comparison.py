"""The report of a comparison of runs."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlefw.report.observation import nats
from mlefw.report.page import Page, Picture, Row, Section, Table
from mlefw.report.sentences import model_name, verdict
from mlefw.system.number_format import number, robust_difference

_LABELS = ("head", "prior", "model", "loss")
"""Settings that are named also where all runs share them; in place of the last two, unless they are the usual ones."""

_NUMBERED = re.compile(r"(\d{3,})_")
"""The beginning of the names of the jobs of a sweep."""

_SEEDS = {"± seeds": "nll_se", "spread": "spread"}
"""The columns on the NLL of the runs of a candidate, and their keys in `seeds`."""

_BESIDE = {"gap to MLE": "gap_nats", "skill": "skill"}
_CALIBRATION = ("accuracy", "coverage_90", "pit_rmse", "ece_15")


def comparison_report(
    summaries: Sequence[Mapping[str, Any]], pictures: Sequence[Picture], more: Sequence[Picture] = ()
) -> str:
    """The report of a comparison as HTML.

    Args:
        summaries: summaries of the runs, ranked, each with `run_dir` and, if it finished, `ranked_by`.
        pictures: pictures of the comparison.
        more: pictures of the best run.
    """
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    count = sum(len(summary["seeds"]["runs"]) if "seeds" in summary else 1 for summary in finished)
    of = f", {len(finished)} apart from their seeds" if count > len(finished) else ""
    about = f"{count} finished of {count + len(summaries) - len(finished)} runs{of}"
    if not finished:
        words = "No run has finished."
    else:
        best, split = finished[0], finished[0]["ranked_by"]
        least = f"{number(best['metrics'][split].get('nll_nats'))} {nats(best)}"
        words = f"{name_of(best)} has the least NLL on {named(split)} rows: {least}."
        words = " ".join(part for part in (words, ahead(finished), chosen(finished), verdict(best)) if part)
    sections = [Section("Ranking", [_ranking(summaries)], pictures)]
    sections += [Section(f"The best run, {name_of(finished[0])}", (), more)] if more else []
    sections += [Section("Figures of each run", [_figures(finished)])] if finished else []
    seen = dict.fromkeys(f"{name_of(s)}: {text}" for s in summaries for text in s.get("warnings", ()))
    return Page("mlefw comparison", words, about, sections, list(seen), f"mlefw {version('mlefw')}").html()


def named(split: str) -> str:
    """A split in words."""
    return split.replace("_", "-")


def name_of(summary: Mapping[str, Any]) -> str:
    """The name of a run; of the job of a sweep its number alone, since its settings are shown beside it."""
    name = Path(summary["run_dir"]).name
    job = _NUMBERED.match(name)
    return job[1] if job and summary.get("settings") else name


def labels(summaries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The settings in which runs differ, at least the head; and the main other settings with their common values.

    Args:
        summaries: each with `settings`, and `model` as it is to be named.
    """
    finished = [{"loss": "plain", **summary} for summary in summaries if summary["status"] == "finished"]
    differ = [n for n in _LABELS if len(finished) < 2 or len({str(s.get(n)) for s in finished}) > 1]
    differ = list(dict.fromkeys(["head", *differ, *(n for s in finished for n in s.get("settings", ()))]))
    known = finished[0] if finished else {}
    common = [f"{n} {known[n]}" for n in _LABELS if n in known.keys() - differ and known[n] != "plain"]
    return [n for n in differ if any(setting(s, n) not in ("", "plain") for s in finished)] or ["head"], common


def setting(summary: Mapping[str, Any], name: str) -> str:
    """The value of a setting of a run as text."""
    value = summary.get(name) if name in _LABELS else summary.get("settings", {}).get(name)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def columns(finished: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the columns of the ranking: NLL, gaps, and the calibration figures that some run has."""
    known = {name for summary in finished for name in summary["metrics"][summary["ranked_by"]]}
    behind = ["behind", "± paired"] if any("behind" in summary for summary in finished) else []
    seeds = list(_SEEDS) if any("seeds" in summary for summary in finished) else []
    return [
        *_leading(finished[0] if finished else {}),
        *seeds,
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
    known |= {name: summary.get("seeds", {}).get(key) for name, key in _SEEDS.items()}
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
    first, second = name_of(ranked[0]), name_of(ranked[1])
    if abs(mean) <= 2 * error:
        return f"{first} cannot be told from {second}: they differ by {amount}."
    return f"{first} {'is ahead of' if mean > 0 else 'is behind'} {second} by {amount}."


def chosen(ranked: Sequence[Mapping[str, Any]]) -> str:
    """Sentences on the best of several candidates: what it is, what it is worth on test rows, and its optimism."""
    if len(ranked) < 2:
        return ""
    best, split = ranked[0], ranked[0]["ranked_by"]
    runs = best.get("seeds", {}).get("runs", ())
    of = f", the mean of {len(runs)} runs" if runs else ""
    text = f"{name_of(best)} was chosen among {len(ranked)} by its NLL on {named(split)} rows{of}"
    known = best["metrics"].get("test", {}) if split in ("validation", "out_of_fold") else {}
    if "nll_nats" in known:
        error = f" ± {number(known['nll_se'])}" if "nll_se" in known else ""
        text += f"; on test rows, which had no part in it, it has {number(known['nll_nats'])}{error} {nats(best)}"
    if "selection" not in best:
        return f"{text}."
    amount = best["selection"]["optimism_nats"]
    too_low = (
        f"For having been chosen on them, its {named(split)} NLL is too low by about {amount:.2g} {nats(best)}"
        if amount > 0
        else f"Having been chosen on them makes its {named(split)} NLL no better than it is"
    )
    return f"{text}. {too_low} (bootstrap)."


def _ranking(summaries: Sequence[Mapping[str, Any]]) -> Table:
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    split = finished[0]["ranked_by"] if finished else "test"
    summaries = [{**summary, "model": model_name(summary, split)} for summary in summaries]
    words, _ = labels(summaries)
    shown, rows = columns(finished), []
    for position, summary in enumerate(summaries):
        cells = [setting(summary, word) for word in words]
        if summary["status"] != "finished":
            rows.append(Row(name_of(summary), [*cells, summary["status"], *[""] * (len(shown) - 1)]))
            continue
        numbers = [number(value) for value in values(summary, shown)]
        rows.append(Row(name_of(summary), [*cells, *numbers], strong=position == 0))
    return Table(["run", *words, *shown], rows, num_text=len(words), file="the summaries")


def _figures(finished: Sequence[Mapping[str, Any]]) -> Table:
    split = finished[0]["ranked_by"]
    names = list(dict.fromkeys(name for summary in finished for name in summary["metrics"][split]))
    rows = [Row(name_of(s), [number(s["metrics"][split].get(name)) for name in names]) for s in finished]
    return Table(["run", *names], rows, f"on {named(split)} rows", file="the summaries")
