"""Reports how each job of a sweep ended, in the terminal and on disk."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from mlefw.errors import StorageError
from mlefw.run.directory import summary_of
from mlefw.sweep.record import Job, Journal, UnrecordedJobs
from mlefw.system.atomic import write_json
from mlefw.system.child import killed_by
from mlefw.system.fork_pool import Ended
from mlefw.system.number_format import number
from mlefw.system.own_folder import replace_links
from mlefw.system.signals import SIGNALS
from mlefw.system.terminal import console

STOPPED = tuple(128 + number for number in SIGNALS)
"""Exit codes of jobs that a signal stopped."""
_TAIL = 20_000
"""Bytes at the end of a log in which the error message is looked for."""
ERROR = "mlefw: error: "
"""What an error message begins with."""


class Progress:
    """Prints a line for each job that ends, and notes its result.

    Args:
        journal: the journal of the sweep, or jobs without one.
        has_summary: whether a job that succeeds leaves a finished `summary.json`.
        timeout_s: time limit of a job in seconds; None for none.
        counts: whether each line has the number of jobs that have ended among all.
    """

    def __init__(
        self, journal: Journal | UnrecordedJobs, has_summary: bool, timeout_s: float | None, counts: bool = True
    ) -> None:
        self.journal, self.has_summary, self.timeout_s, self.counts = journal, has_summary, timeout_s, counts
        self.out: Console = console()
        self.count = 0

    def log(self, job: Job) -> Path:
        """The file for the output of a job while it runs; afterwards it is `output.log` in the directory of the job."""
        name = "-".join(job.run_dir.relative_to(self.journal.root).parts)
        return self.journal.root / f"{name}.log"

    def ended(self, index: int, how: Ended) -> None:
        """Note how the process of a job ended.

        Args:
            index: number of the job.
            how: exit code (negative for a signal), duration, and whether the time limit ended it.
        """
        self.note(index, how)
        self.print_line(self.journal.jobs[index])

    def note(self, index: int, how: Ended) -> None:
        """Note how the process of a job ended, as `ended` does, without printing it."""
        job = self.journal.jobs[index]
        job.seconds = how.seconds
        job.exit_code = how.code if how.code >= 0 else 128 - how.code
        said = log_tail(self.log(job))
        summary = summary_of(job.run_dir)
        if how.code == 0 and summary.get("status") == "skipped":
            job.skip(summary)
        elif how.code == 0 and (not self.has_summary or summary.get("status") == "finished"):
            job.finish("finished")
        else:
            job.status = "stopped" if job.exit_code in STOPPED and not how.is_late else "failed"
            job.reason = self._reason(how, said)
            with suppress(OSError, StorageError):
                replace_links(job.run_dir).mkdir(mode=0o755, exist_ok=True)
                if not summary:
                    write_json(job.run_dir / "summary.json", {"status": "failed", "reason": job.reason})
        self.store_log(job)
        if job.is_done and not job.run_dir.exists():
            self.out.print(said.rstrip(), soft_wrap=True, markup=False)

    def print_line(self, job: Job) -> None:
        """Print one line on a job that has ended."""
        self.count += 1
        total = len(self.journal.jobs)
        place = f"[{self.count:{len(str(total))}}/{total}] " if total > 1 and self.counts else ""
        words = [f"{place}{job.status:<8}  {job.run_dir.name}"]
        if job.nll_nats is not None:
            words.append(f"{number(job.nll_nats)} {job.unit} on {job.split}")
        if job.seconds is not None:
            words.append(f"{job.seconds:.1f} s")
        if job.reason and job.is_skipped:
            words.append(job.reason)
        elif job.reason:
            words.append(f"exit code {job.exit_code}: {job.reason}")
        self.out.print("  ".join(words), soft_wrap=True, markup=False)
        self.journal.tick()

    def _reason(self, how: Ended, said: str) -> str:
        """Why a job failed, from its exit and the end of its output."""
        if how.is_late:
            return f"took longer than {self.timeout_s:g} s"
        if how.code < 0:
            return killed_by(how.code)
        if ERROR in said:
            return said.rpartition(ERROR)[2].strip()
        if how.code == 0:
            return "ended without a result"
        lines = [line for line in said.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "ended without an error message"

    def store_log(self, job: Job) -> None:
        """Move the log into the directory of the job; delete it if it is empty or there is no directory."""
        log, place = self.log(job), job.run_dir / "output.log"
        with suppress(OSError):
            if log.stat().st_size == 0 or not job.run_dir.exists():
                log.unlink()
            elif not place.exists():
                log.rename(replace_links(place))
            else:
                # The job goes on in the directory of an attempt that was stopped.
                with replace_links(place).open("ab") as whole, log.open("rb") as part:
                    shutil.copyfileobj(part, whole)
                log.unlink()


def log_tail(path: Path) -> str:
    """The end of a log; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
