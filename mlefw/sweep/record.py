"""The jobs of a sweep and what became of each, stored in `sweep.json` and `sweep.csv` in the directory of the sweep."""

import csv
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlefw.report.observation import nats
from mlefw.run.directory import SUPERSEDED, summary_of
from mlefw.system.atomic import Json, write_json, write_text
from mlefw.system.inert_text import spreadsheet_cell
from mlefw.system.own_folder import replace_links

NAME = "sweep.json"
_WRITE_S = 2.0
"""Least time between two writes of `sweep.json`, in seconds."""
_MOST_LETTERS = 60
"""Most characters of settings in the name of a directory."""


@dataclass
class Job:
    """One job of a sweep and what became of it.

    Args:
        number: position in the grid, from 0.
        overrides: the swept settings with their values.
        run_dir: the directory of the run.
        status: finished, kept (finished in an earlier attempt), skipped (its head cannot model the target), failed,
            stopped (by a signal), not run; of a trial of a search also paused at a rung, or pruned.
        exit_code: exit code of the job; 128 + n if signal n killed it.
        reason: why the job is not finished.
        nll_nats: NLL in nats per row, by which the best is chosen: on validation rows, else on test rows.
        split: the split of `nll_nats`.
        seconds: duration in seconds.
    """

    number: int
    overrides: list[str]
    run_dir: Path
    status: str = "not run"
    exit_code: int | None = None
    reason: str | None = None
    nll_nats: float | None = None
    split: str | None = None
    seconds: float | None = None

    @property
    def unit(self) -> str:
        """The unit of `nll_nats` in words, from the summary of the run."""
        return nats(summary_of(self.run_dir))

    @property
    def is_done(self) -> bool:
        """Whether the job has a result."""
        return self.status in ("finished", "kept", "paused", "pruned")

    @property
    def is_skipped(self) -> bool:
        """Whether nothing was computed because the head cannot model the target."""
        return self.status == "skipped"

    def finish(self, status: str) -> None:
        """Set the status, one of those with a result, and take `nll_nats` and `split` from the summary of the run."""
        self.status = status
        metrics = summary_of(self.run_dir).get("metrics", {})
        for split in ("validation", "test", "train"):
            if "nll_nats" in metrics.get(split, {}):
                self.nll_nats, self.split = metrics[split]["nll_nats"], split
                return

    def skip(self, summary: Mapping[str, Any]) -> None:
        """Set the status `skipped`, with the reason in a summary as one line."""
        self.status, self.reason = "skipped", " ".join(str(summary["reason"]).split())


def folder_name(number: int, overrides: Iterable[str]) -> str:
    """The name of a job's directory: its number and settings, in characters that shells and Hydra take literally."""
    return f"{number:03d}_{_label(overrides)}"


def _label(overrides: Iterable[str]) -> str:
    """The part of a directory's name that stands for the settings."""
    plain = "_".join(item.replace("=", "-", 1) for item in overrides)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    if name == plain and len(name) <= _MOST_LETTERS:
        return name
    # Different settings may become equal by replacement or truncation, so a hash tells them apart.
    return f"{name[:_MOST_LETTERS]}_{hashlib.sha256(plain.encode()).hexdigest()[:6]}"


def _earlier_label(overrides: Iterable[str]) -> str:
    """The label in directories of older versions, which contain characters that shells read."""
    return re.sub(r"[^\w=.,+-]+", "_", ",".join(overrides))[:120]


def plan(root: Path, overrides: Iterable[Sequence[str]], swept: Iterable[str], first: int = 0) -> list[Job]:
    """The jobs of a grid, each with its directory.

    Args:
        root: the directory of the sweep.
        overrides: all settings of each job.
        swept: keys of the settings that differ between jobs; these alone name the directories.
        first: number of the first job.
    """
    chosen, names = [], set(swept)
    for number, task in enumerate(overrides, first):
        kept = [item for item in (item.lstrip("+") for item in task) if item.split("=")[0] in names]
        chosen.append(Job(number, kept, root / folder_name(number, kept)))
    return chosen


def read(root: Path) -> list[Job]:
    """The jobs of the sweep in a directory; an empty list if it has no `sweep.json`."""
    try:
        content = json.loads((root / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [Job(**{**row, "run_dir": root / row["run_dir"]}) for row in content["jobs"]]


def attempts(root: Path, job: Job) -> list[Path]:
    """Run directories of earlier attempts at the settings of a job, whatever its number in the grid was then."""
    labels = (_label(job.overrides), _earlier_label(job.overrides))
    found = sorted({path for label in labels for path in root.glob(f"[0-9]*_{label}")})
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def supersede(root: Path, path: Path) -> None:
    """Move the directory of a failed attempt into the folder for superseded ones, under a new number."""
    folder = root / SUPERSEDED
    replace_links(folder).mkdir(mode=0o755, exist_ok=True)
    count = sum(1 for _ in folder.glob(f"{path.name}.*"))
    shutil.move(path, folder / f"{path.name}.{count + 1}")


class UnrecordedJobs:
    """Jobs without `sweep.json` and `sweep.csv`, such as folds: each has its own directory only.

    Has the attributes of `Journal`, but `jobs` is a dict by number.

    Args:
        root: the folder that holds the directories of the jobs.
        jobs: the jobs.
    """

    def __init__(self, root: Path, jobs: Iterable[Job]) -> None:
        self.root, self.jobs = root, {job.number: job for job in jobs}

    def tick(self) -> None:
        """Do nothing: there is no record to write."""


class Journal:
    """The jobs of a sweep, which are written to disk every two seconds at most, and at the end.

    Args:
        root: the directory of the sweep.
        jobs: all jobs, in the order of their numbers.
    """

    def __init__(self, root: Path, jobs: Sequence[Job]) -> None:
        self.root, self.jobs = root, list(jobs)
        self.written = -_WRITE_S
        self.tick()

    def tick(self) -> None:
        """Write `sweep.json` unless it was written in the last two seconds."""
        if self.is_due:
            self._write()

    @property
    def is_due(self) -> bool:
        """Whether the last write was more than two seconds ago."""
        return time.monotonic() - self.written >= _WRITE_S

    def close(self) -> None:
        """Write `sweep.json` and `sweep.csv`."""
        self._write()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._rows()[0]), lineterminator="\n")
        writer.writeheader()
        rows = [{**row, "overrides": " ".join(row["overrides"])} for row in self._rows()]
        writer.writerows(
            {name: spreadsheet_cell(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows
        )
        write_text(self.root / "sweep.csv", text.getvalue())

    def _write(self) -> None:
        write_json(self.root / NAME, {"jobs": self._rows()})
        self.written = time.monotonic()

    def _rows(self) -> list[Json]:
        return [{**asdict(job), "run_dir": str(job.run_dir.relative_to(self.root))} for job in self.jobs]
