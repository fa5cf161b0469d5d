"""Groups among the jobs of a sweep: each is a process, and where it ends without a word its jobs are run alone."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from mlefw.configuration.read import settings_of
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.run.directory import summary_of
from mlefw.sweep.population import run, signature
from mlefw.sweep.progress import STOPPED, Progress
from mlefw.sweep.record import supersede
from mlefw.system.file_system import remove
from mlefw.system.fork_pool import Ended, Pool

_TOLD = (0, UsageError.exit_code, signature.UnsuitableError.exit_code, *STOPPED)
"""Codes of a group after which its jobs say all there is to say."""


class Groups:
    """Starts groups and notes how their jobs have ended; `left` are the jobs to be run alone.

    Args:
        progress: of the sweep.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.journal = progress, progress.journal
        self.running: dict[int, list[run.Entry]] = {}
        self.left: list[int] = []

    def submit(self, pool: Pool, configs: dict[int, Node], processes: int | None = None) -> list[int]:
        """Start all groups there are among jobs with these configurations; the jobs in none of them.

        `processes`: over how many jobs that are alike are spread; by default as many as the pool has.
        """
        indices = list(configs)
        found = signature.groups(
            [signature.signature(settings_of(configs[index])) for index in indices], processes or pool.size
        )
        members = [[indices[position] for position in group] for group in found]
        for number, group in enumerate(members, 1):
            self._submit(pool, -number, group, configs)
        return sorted({*indices} - {index for group in members for index in group})

    def ended(self, key: int, how: Ended) -> None:
        """Note how a process ended: that of a job, or that of a group, which has a negative key."""
        if key >= 0:
            self.progress.ended(key, how)
            return
        entries, results = self.running.pop(key), self._file(key, "json")
        known = run.read(results)
        remove(results)
        for entry in entries:
            job = self.journal.jobs[entry.index]
            if entry.index in known:
                self.progress.ended(entry.index, Ended(*known[entry.index]))
            elif summary_of(job.run_dir).get("status") == "finished":
                self.progress.ended(entry.index, Ended(0, how.seconds / len(entries)))
            elif how.code in STOPPED:
                self.progress.ended(entry.index, how)
            else:
                self._put_back(entry)
        if how.code in _TOLD:
            remove(self._file(key, "log"))

    def _submit(self, pool: Pool, key: int, group: Sequence[int], configs: dict[int, Node]) -> None:
        jobs = self.journal.jobs
        entries = [run.Entry(i, configs[i], jobs[i].run_dir, self.progress.log(jobs[i])) for i in group]
        self.running[key] = entries
        pool.submit(key, partial(run.run, entries, self._file(key, "json")), self._file(key, "log"))

    def _put_back(self, entry: run.Entry) -> None:
        """Let a job be run alone, as if it had not been tried."""
        with suppress(OSError):
            entry.log.unlink(missing_ok=True)
            if entry.run_dir.exists():
                supersede(self.journal.root, entry.run_dir)
        self.left.append(entry.index)

    def _file(self, key: int, suffix: str) -> Path:
        return self.journal.root / f"population-{-key}.{suffix}"
