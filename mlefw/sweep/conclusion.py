"""The end of a sweep: ranked tables, the jobs without a result, and a report with pictures of the best job."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten

from mlefw.report.page import Picture
from mlefw.sweep.record import Job
from mlefw.system.atomic import Json
from mlefw.system.attempt import attempt
from mlefw.system.terminal import console

REPORT = "report.html"
"""The comparison of the jobs, in the directory of the sweep; the name has the measure in it where there are two."""

_MOST_ROWS = 40
"""Most rows of the table in the terminal; `mlefw compare` shows all."""
_MOST_LETTERS = 110
"""Most characters of the reason why a job was skipped, which was printed in full when it ended."""


def conclude(root: Path, jobs: Sequence[Job], draws: bool) -> int:
    """Print the results, and write the report; the exit code is 5 if a job failed or none has a result.

    Args:
        root: the directory of the sweep.
        jobs: what became of its jobs.
        draws: whether a report is written if several jobs have a result.
    """
    groups = print_results(root, jobs)
    done = sum(job.is_done for job in jobs)
    if draws and done > 1:
        for ranked in groups:
            name = REPORT if len(groups) == 1 else f"report_{ranked[0]['measure']}.html"
            attempt("the report of the sweep", partial(_write_report, ranked, root / name), None)
    return 5 if not done or any(not (job.is_done or job.is_skipped) for job in jobs) else 0


def print_results(root: Path, jobs: Sequence[Job]) -> list[list[Json]]:
    """Print ranked tables and the jobs without a result; the ranked summaries, those of densities and masses apart."""
    from mlefw.command import compare

    out, groups = console(), list[list[Json]]()
    if any(job.nll_nats is not None for job in jobs):
        groups = [compare.rank(found) for found in compare.by_measure(compare.find([str(root)]))]
        for ranked in groups:
            out.print(compare.table(ranked[:_MOST_ROWS]))
            if len(ranked) > _MOST_ROWS:
                out.print(f"… and {len(ranked) - _MOST_ROWS} more: mlefw compare runs={root}", soft_wrap=True)
            for sentence in compare.sentences(ranked):
                out.print(sentence, soft_wrap=True, markup=False)
        if len(groups) > 1:
            out.print("Densities and masses are in no common unit, and are ranked apart.", soft_wrap=True)
    for job in (job for job in jobs if not job.is_done):
        reason = f": {job.reason}" if job.reason else ""
        reason = shorten(reason, _MOST_LETTERS, placeholder=" …") if job.is_skipped else reason
        out.print(f"{job.status:<8}  {job.run_dir.name}{reason}", soft_wrap=True, markup=False)
    done, skipped = (sum(getattr(job, name) for job in jobs) for name in ("is_done", "is_skipped"))
    kept = sum(job.status == "kept" for job in jobs)
    before = f" ({kept} of them before)" if kept else ""
    before += f", {skipped} skipped" if skipped else ""
    out.print(f"sweep: {done} of {len(jobs)} jobs finished{before} in {root}", soft_wrap=True)
    if done + skipped < len(jobs):
        out.print("       the same command with this run_dir runs the others", soft_wrap=True)
    out.print(f"look:  tensorboard --logdir {root}", soft_wrap=True)
    return groups


def _write_report(ranked: Sequence[Json], path: Path) -> None:
    from mlefw.command.comparison_page import write_report

    pictures = attempt("the pictures of the best job", partial(_of_best, ranked[0]), [])
    write_report(ranked, path, pictures)
    console().print(f"       {path}", soft_wrap=True)


def _of_best(best: Json) -> list[Picture]:
    """The pictures of the best job, which are drawn into its directory unless it has some."""
    from mlefw.command import evaluate
    from mlefw.configuration.settings import EvaluationSettings, TableSettings
    from mlefw.run.drawn import of_training
    from mlefw.run.exhibit import CAPTIONS, captioned, store
    from mlefw.system import trust

    folder = Path(best["run_dir"]) / "plots"
    if not folder.exists():
        split = next((name for name in ("validation", "test") if name in best["metrics"]), "train")
        config = EvaluationSettings(run=best["run_dir"], data=TableSettings(), split=split, plots=str(folder))
        evaluate.run(config, tuple(trust.trusted()))
        store(folder, captioned(of_training(folder.parent, best)))
    files = {file.stem: file for file in sorted(folder.glob("*.png"))}
    return [
        Picture(files[name].read_bytes(), name.replace("_", " ").capitalize(), words)
        for name, words in CAPTIONS.items()
        if name in files
    ]
