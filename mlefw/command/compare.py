"""mlefw compare: one ranked table over runs or a whole sweep."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mlefw.atomic import write_text
from mlefw.console import model_name, number
from mlefw.errors import UsageError
from mlefw.new_data import check_output
from mlefw.run_directory import SUPERSEDED


def run(runs: Sequence[str]) -> list[dict[str, Any]]:
    """The summaries of the runs found, best first by NLL on test (else validation, else training) rows.

    Raises:
        UsageError: no run there, or a summary that cannot be read.
    """
    if not runs:
        raise UsageError("runs= is missing: expected run directories, or the directory of a sweep")
    found = []
    for name in runs:
        root = Path(name)
        if not root.is_dir():
            raise UsageError(f"runs={name}: there is no such directory ({root.absolute()})")
        files = [root / "summary.json"] if (root / "summary.json").is_file() else _below(root)
        if not files:
            raise UsageError(f"runs={name}: no summary.json in it or below it")
        found += [_read(file) for file in files]
    finished = [summary for summary in found if summary["status"] == "finished"]
    split = next(s for s in ("test", "validation", "train") if all(s in f["metrics"] for f in finished) or s == "train")
    for summary in finished:
        summary["ranked_by"] = split
    finished.sort(key=lambda summary: summary["metrics"][split].get("nll_nats", float("inf")))
    return finished + [summary for summary in found if summary["status"] != "finished"]


def table(summaries: Sequence[dict[str, Any]]) -> Table:
    """The runs as a table."""
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    split = finished[0]["ranked_by"] if finished else "test"
    shown = Table(title=f"Ranked by NLL on {split} rows", title_justify="left")
    for name in ("run", "head", "prior", "model", "seed"):
        shown.add_column(name)
    for name in ("nats per row", "± s.e.", "bits", "gap to linear MLE", "skill"):
        shown.add_column(name, justify="right")
    for summary in summaries:
        labels = [escape(Path(summary["run_dir"]).name)]
        words = {**summary, "model": model_name(summary, split)}
        labels += [escape(str(words.get(name, ""))) for name in ("head", "prior", "model", "seed")]
        if summary["status"] != "finished":
            shown.add_row(*labels, "failed", *[""] * 4)
            continue
        figures, distance = summary["metrics"][split], summary.get("distance", {})
        values = [figures.get(name) for name in ("nll_nats", "nll_se", "nll_bits")]
        values += [distance.get(name, {}).get(split) for name in ("gap_nats", "skill")]
        shown.add_row(*labels, *(number(value) for value in values))
    return shown


def write_report(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the comparison as one self-contained HTML file."""
    from mlefw.plot.comparison import comparison
    from mlefw.plot.style import png
    from mlefw.report.comparison import comparison_report
    from mlefw.report.page import Picture

    pictures = []
    ranked = [s for s in summaries if s["status"] == "finished" and "nll_nats" in s["metrics"][s["ranked_by"]]]
    if ranked:
        split = ranked[0]["ranked_by"]
        names = [Path(summary["run_dir"]).name for summary in ranked]
        figures = [summary["metrics"][split] for summary in ranked]
        nats, errors = ([values.get(key, 0.0) for values in figures] for key in ("nll_nats", "nll_se"))
        figure = comparison(names, nats, errors, split)
        conclusion = f"{names[0]} has the least NLL on {split} rows"
        pictures.append(Picture(png(figure), conclusion, "Mean NLL of each run ± 2 standard errors."))
    write_text(path, comparison_report(summaries, pictures))


def check_report(path: Path, overwrite: bool) -> None:
    """Refuse a place for the report before anything is read.

    Raises:
        UsageError: it is taken, or there is no such folder.
    """
    check_output(path, overwrite, "report")
    if not path.parent.is_dir():
        raise UsageError(f"report={path}: there is no directory {path.parent.absolute()}")


def _below(root: Path) -> list[Path]:
    """The summaries in the runs of a directory; attempts that a sweep has repeated do not count."""
    return [file for file in sorted(root.rglob("summary.json")) if SUPERSEDED not in file.relative_to(root).parts]


def _read(file: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as a summary: {error}") from error
    if not isinstance(summary, dict) or "status" not in summary:
        raise UsageError(f"{file} is not the summary of a run")
    return {**summary, "run_dir": str(file.parent)}
