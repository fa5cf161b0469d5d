"""Groups among the jobs of a sweep: each is trained in a process; where that one crashes, its jobs are run alone."""

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

_EXPECTED_CODES = (0, UsageError.exit_code, signature.UnsuitableError.exit_code, *STOPPED)
"""Exit codes of the process of a group after which its own log is of no use: the logs of its jobs say it all."""


class Groups:
    """Starts groups, and notes how their jobs have ended.

    Args:
        progress: of the sweep.

    Attributes:
        running: the jobs of each group in training, by the key of its process.
        left: indices of the jobs that were in a group and have to be run alone.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.journal = progress, progress.journal
        self.running: dict[int, list[run.Entry]] = {}
        self.left: list[int] = []

    def submit(self, pool: Pool, configs: dict[int, Node], processes: int | None = None) -> list[int]:
        """Start the groups among some jobs; the indices of the jobs that belong to none.

        Args:
            pool: of processes, which trains them.
            configs: the settings of the jobs, by index.
            processes: number of groups into which jobs that can train together are split; by default the pool's size.
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
        """Note how the process of a job, or of a group, whose keys are negative, has ended."""
        if key >= 0:
            self.progress.ended(key, how)
            return
        entries, results = self.running.pop(key), self._file(key, "json")
        known = run.read_results(results)
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
        if how.code in _EXPECTED_CODES:
            remove(self._file(key, "log"))

    def _submit(self, pool: Pool, key: int, group: Sequence[int], configs: dict[int, Node]) -> None:
        jobs = self.journal.jobs
        entries = [run.Entry(i, configs[i], jobs[i].run_dir, self.progress.log(jobs[i])) for i in group]
        self.running[key] = entries
        pool.submit(key, partial(run.run, entries, self._file(key, "json")), self._file(key, "log"))

    def _put_back(self, entry: run.Entry) -> None:
        """Note that a job has to be run alone, and put aside what it has left so far."""
        with suppress(OSError):
            entry.log.unlink(missing_ok=True)
            if entry.run_dir.exists():
                supersede(self.journal.root, entry.run_dir)
        self.left.append(entry.index)

    def _file(self, key: int, suffix: str) -> Path:
        return self.journal.root / f"population-{-key}.{suffix}"
