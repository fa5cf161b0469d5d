"""mlefw compare: one ranked table over runs or a whole sweep."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mlefw.command.candidates import candidates, scores_of, selection, with_settings
from mlefw.configuration.path_setting import literal, several
from mlefw.errors import UsageError
from mlefw.report import comparison
from mlefw.report.sentences import model_name
from mlefw.run import row_scores
from mlefw.run.directory import MEMBERS, SUPERSEDED
from mlefw.run.new_data import check_folder, check_output
from mlefw.system.atomic import Json
from mlefw.system.local_path import local_path
from mlefw.system.number_format import number
from mlefw.system.terminal import console

_SPLITS = ("validation", row_scores.OUT_OF_FOLD, "test", "train")
"""By the first that all runs have they are ranked: test rows are to tell what the chosen one is worth."""

# The two kinds of NLL, which are in different units: `measure` of a summary, and the words for it.
_MEASURES = {"density": "NLL (of densities)", "mass": "NLL (of masses)"}


def main(arguments: Sequence[str]) -> int:
    """Read the arguments of the command line, print the table, and return the exit code."""
    runs: list[str] = []
    report, measure, split, overwrite = "", "", "", False
    for argument in arguments:
        if argument.startswith("report="):
            report = literal(argument.removeprefix("report="))
        elif argument.startswith("measure="):
            measure = argument.removeprefix("measure=")
        elif argument.startswith("split="):
            split = argument.removeprefix("split=")
        elif argument.startswith("overwrite="):
            overwrite = argument.lower() == "overwrite=true"
        else:
            runs += several(argument.removeprefix("runs="))
    if report:
        check_report(local_path(report, "report"), overwrite)
    summaries = run(runs, measure, split)
    out = console()
    out.print(table(summaries))
    for sentence in sentences(summaries):
        out.print(sentence, soft_wrap=True, markup=False)
    if report:
        # Imported here, because a table needs no pictures.
        from mlefw.command.comparison_page import write_report

        write_report(summaries, local_path(report, "report"))
        out.print(f"written: {report}", soft_wrap=True, markup=False)
    return 0


def run(runs: Sequence[str], measure: str = "", split: str = "") -> list[Json]:
    """The summaries of the candidates found, best first by NLL on the rows of a split (see `rank`).

    Args:
        runs: run directories, or directories with run directories below them.
        measure: `density` or `mass` for runs that predict one alone; empty for all.
        split: `validation`, `out_of_fold`, `test` or `train`; empty for the first of these that all runs have.

    Raises:
        UsageError: there are no runs, a summary cannot be read, some runs predict densities and others masses, or a run
            has no such split.
    """
    if split not in ("", *_SPLITS):
        raise UsageError(f"split={split}: expected {', '.join(_SPLITS[:-1])} or {_SPLITS[-1]}")
    if measure not in ("", *_MEASURES):
        raise UsageError(f"measure={measure}: expected {' or '.join(_MEASURES)}")
    found = find(runs)
    finished = [summary for summary in found if summary["status"] == "finished"]
    groups = by_measure(summary for summary in finished if measure in ("", summary.get("measure", measure)))
    if len(groups) > 1:
        heads = {group[0]["measure"]: ", ".join(sorted({str(s["head"]) for s in group})) for group in groups}
        raise UsageError(
            f"runs={','.join(map(str, runs))}: the NLL of densities ({heads['density']}) and of masses "
            f"({heads['mass']}) are in no common unit, and are not ranked together\n"
            f"  expected: measure=density or measure=mass, or runs of one kind"
        )
    if measure and not groups:
        raise UsageError(f"measure={measure}: none of the {len(finished)} finished runs predicts a {measure}")
    ranked = rank(groups[0], split) if groups else []
    return ranked + [summary for summary in found if summary["status"] != "finished"]


def find(runs: Sequence[str]) -> list[Json]:
    """The summaries of the runs in directories, each with its `run_dir`; those that were skipped are left out.

    Raises:
        UsageError: there are no runs, or a summary cannot be read.
    """
    if not runs:
        raise UsageError("runs= is missing: expected run directories, or the directory of a sweep")
    found = []
    for name in runs:
        root = local_path(name, "runs")
        if not root.is_dir():
            raise UsageError(f"runs={name}: there is no such directory ({root.absolute()})")
        files = [root / "summary.json"] if (root / "summary.json").is_file() else _summaries_below(root)
        if not files:
            raise UsageError(f"runs={name}: no summary.json in it or below it")
        found += [_read_summary(file) for file in files]
    return [summary for summary in found if summary["status"] != "skipped"] or found


def by_measure(summaries: Iterable[Json]) -> list[list[Json]]:
    """The finished runs in groups: those that predict densities, and those that predict masses.

    One group of all where a summary does not say what the run predicts, as with earlier versions.
    """
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    known = [summary.get("measure") for summary in finished]
    if not all(measure in _MEASURES for measure in known):
        return [finished]
    return [[s for s in finished if s["measure"] == measure] for measure in _MEASURES if measure in known]


def rank(finished: list[Json], split: str = "") -> list[Json]:
    """The summaries of the candidates (`candidates`) with the least NLL first.

    Each gets `ranked_by`, the split; and on the rows of the best one `behind`, the difference from it with its paired
    standard error, and `decisive`, the few rows that carry the difference. The best one gets `selection`: among how
    many it was chosen, and by how much its NLL is too low for that.

    Raises:
        UsageError: a run has no such split.
    """
    split = split or next(s for s in _SPLITS if all(s in f["metrics"] for f in finished))
    if without := [summary for summary in finished if split not in summary["metrics"]]:
        raise UsageError(
            f"split={split}: {without[0]['run_dir']} has no such rows: expected one of "
            + ", ".join(name for name in _SPLITS if name in without[0]["metrics"])
        )
    ranked = [{**summary, "ranked_by": split} for summary in candidates(with_settings(finished), split)]
    best = scores_of(ranked[0], split) if len(ranked) > 1 else None
    for summary in ranked[1:]:
        scores = None if best is None else scores_of(summary, split)
        if best is None or scores is None:
            continue
        difference = scores.behind(best)
        few = None if difference is None else scores.decisive(best)
        summary |= {} if difference is None else {"behind": difference}
        summary |= {} if few is None else {"decisive": few._asdict()}
    chosen = selection(ranked, split) if len(ranked) > 1 else None
    ranked[0] |= {} if chosen is None else {"selection": chosen}
    return ranked


def table(summaries: Sequence[Json]) -> Table:
    """The runs as a table to be printed; choices that they all share are in its title."""
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    split = finished[0]["ranked_by"] if finished else "test"
    words = [{**summary, "model": model_name(summary, split)} for summary in summaries]
    labels, common = comparison.labels(words)
    what = _MEASURES.get(finished[0].get("measure", ""), "NLL") if finished else "NLL"
    shown = Table(
        title=escape(", ".join([f"Ranked by {what} on {comparison.named(split)} rows", *common])), title_justify="left"
    )
    for name in ("run", *labels):
        shown.add_column(name, overflow="fold")
    columns = comparison.columns(finished)
    for name in columns:
        shown.add_column(name, justify="right")
    for summary in words:
        texts = [comparison.name_of(summary), *(comparison.setting(summary, name) for name in labels)]
        names = [escape(text) for text in texts]
        if summary["status"] != "finished":
            shown.add_row(*names, summary["status"], *[""] * (len(columns) - 1))
        else:
            shown.add_row(*names, *(number(value) for value in comparison.values(summary, columns)))
    return shown


def sentences(summaries: Sequence[Json]) -> list[str]:
    """What the ranking says of the best candidate: how far it is ahead, and what it is worth having been chosen."""
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    return [text for text in (comparison.ahead(finished), comparison.chosen(finished)) if text]


def check_report(path: Path, overwrite: bool) -> None:
    """Refuse a path for the report before anything is read.

    Raises:
        UsageError: the file exists and may not be overwritten, or there is no such folder.
    """
    check_output(path, overwrite, "report")
    check_folder(path, "report")


def _summaries_below(root: Path) -> list[Path]:
    """The summary files below a directory, without those of ensemble members and of attempts that were repeated."""
    apart = {SUPERSEDED, MEMBERS}
    return [file for file in sorted(root.rglob("summary.json")) if not apart & {*file.relative_to(root).parts}]


def _read_summary(file: Path) -> Json:
    try:
        summary: Json = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as a summary: {error}") from error
    if not isinstance(summary, dict) or "status" not in summary:
        raise UsageError(f"{file} is not the summary of a run")
    if out := summary.get("ensemble", {}).get(row_scores.OUT_OF_FOLD):
        figures = {name: value for name, value in out.items() if name != "num_rows"}
        summary["metrics"] = {**summary["metrics"], row_scores.OUT_OF_FOLD: figures}
    return {**summary, "run_dir": str(file.parent)}
