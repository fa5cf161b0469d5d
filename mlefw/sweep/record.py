"""What became of each job of a sweep: `sweep.json` and `sweep.csv` in its directory."""

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

from mlefw.run.directory import SUPERSEDED, summary_of
from mlefw.system.atomic import Json, write_json, write_text
from mlefw.system.inert_text import spreadsheet_cell
from mlefw.system.own_folder import replace_links

NAME = "sweep.json"
_WRITE_S = 2.0
_MOST_LETTERS = 60


@dataclass
class Job:
    """One job of a sweep and what became of it.

    Args:
        number: in the order of the grid, from 0.
        overrides: the swept settings with their values.
        run_dir: where it is written.
        status: finished, kept (finished in an earlier attempt), skipped (its head is not for the
            target), failed, stopped (by a signal), or not run.
        exit_code: of the job; 128 + n where signal n killed it.
        reason: why it is not finished.
        nll_nats, split: the headline, on test rows where there are any.
        seconds: that it took.
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
    def is_done(self) -> bool:
        """Whether its result is there."""
        return self.status in ("finished", "kept")

    @property
    def is_skipped(self) -> bool:
        """Whether there was nothing to do, as its head is not for the target."""
        return self.status == "skipped"

    def finish(self, status: str) -> None:
        """Take over the headline of the summary."""
        self.status = status
        metrics = summary_of(self.run_dir).get("metrics", {})
        for split in ("test", "validation", "train"):
            if "nll_nats" in metrics.get(split, {}):
                self.nll_nats, self.split = metrics[split]["nll_nats"], split
                return

    def skip(self, summary: Mapping[str, Any]) -> None:
        """Take over the reason of the summary, as one line."""
        self.status, self.reason = "skipped", " ".join(str(summary["reason"]).split())


def folder_name(number: int, overrides: Iterable[str]) -> str:
    """The name of a job's directory: its number and its settings, in signs that no shell and no grammar reads."""
    return f"{number:03d}_{_label(overrides)}"


def _label(overrides: Iterable[str]) -> str:
    plain = "_".join(item.replace("=", "-", 1) for item in overrides)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    if name == plain and len(name) <= _MOST_LETTERS:
        return name
    # Other settings may be written alike.
    return f"{name[:_MOST_LETTERS]}_{hashlib.sha256(plain.encode()).hexdigest()[:6]}"


def _earlier_label(overrides: Iterable[str]) -> str:
    """That of versions whose directories had to be quoted."""
    return re.sub(r"[^\w=.,+-]+", "_", ",".join(overrides))[:120]


def plan(root: Path, overrides: Iterable[Sequence[str]], swept: Iterable[str], first: int = 0) -> list[Job]:
    """The jobs of a grid, each with its directory."""
    chosen, names = [], set(swept)
    for number, task in enumerate(overrides, first):
        kept = [item for item in (item.lstrip("+") for item in task) if item.split("=")[0] in names]
        chosen.append(Job(number, kept, root / folder_name(number, kept)))
    return chosen


def read(root: Path) -> list[Job]:
    """The jobs of the sweep in a directory; none where it has not begun."""
    try:
        content = json.loads((root / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [Job(**{**row, "run_dir": root / row["run_dir"]}) for row in content["jobs"]]


def attempts(root: Path, job: Job) -> list[Path]:
    """Directories in which the same settings were tried before, whatever number they had in the grid then."""
    labels = (_label(job.overrides), _earlier_label(job.overrides))
    found = sorted({path for label in labels for path in root.glob(f"[0-9]*_{label}")})
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def supersede(root: Path, path: Path) -> None:
    """Put a failed attempt aside: nothing is deleted."""
    folder = root / SUPERSEDED
    replace_links(folder).mkdir(mode=0o755, exist_ok=True)
    count = sum(1 for _ in folder.glob(f"{path.name}.*"))
    shutil.move(path, folder / f"{path.name}.{count + 1}")


class Unrecorded:
    """Jobs of which no record is kept but what stands in their own directories.

    Args:
        root: the folder of their directories.
        jobs: known by their numbers.
    """

    def __init__(self, root: Path, jobs: Iterable[Job]) -> None:
        self.root, self.jobs = root, {job.number: job for job in jobs}

    def tick(self) -> None:
        """Nothing is written."""


class Journal:
    """The jobs of a sweep on disk, written whole every now and then, and at the end."""

    def __init__(self, root: Path, jobs: Sequence[Job]) -> None:
        self.root, self.jobs = root, list(jobs)
        self.written = -_WRITE_S
        self.tick()

    def tick(self) -> None:
        """Write `sweep.json` where the last time is some seconds ago."""
        if time.monotonic() - self.written >= _WRITE_S:
            self._write()

    def close(self) -> None:
        """Write both files."""
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
