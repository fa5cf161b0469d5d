"""Groups among the jobs of a sweep: each is trained in a process; where that one crashes, its jobs are run alone."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from mlefw.configuration.read import settings_of
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.run.directory import summary_of
from mlefw.sweep.population import run, signature
from mlefw.sweep.progress import ERROR, STOPPED, Progress, log_tail
from mlefw.sweep.record import supersede
from mlefw.system.file_system import remove
from mlefw.system.fork_pool import Ended, Pool

_EXPECTED_CODES = (0, UsageError.exit_code, signature.UnsuitableError.exit_code, *STOPPED)
"""Exit codes of the process of a group after which its own log is of no use: the logs of its jobs say it all."""


class Groups:
    """Starts groups, and notes how their jobs have ended.

    Args:
        progress: of the sweep.
        ended: called with the index of each job that has ended, and how; by default `Progress.ended`.
        is_search: whether jobs are trials of a search: then they are trained together whether that is faster or not,
            leave their group one by one, and where a process is killed they have ended, to be gone on with.

    Attributes:
        running: the jobs of each group in training, by the key of its process.
        left: indices of the jobs that were in a group and have to be run alone.
        reason: why jobs that were to be trained together could not be; None if all could.
    """

    def __init__(
        self, progress: Progress, ended: Callable[[int, Ended], None] | None = None, is_search: bool = False
    ) -> None:
        self.progress, self.journal = progress, progress.journal
        self.tell, self.is_search = ended or progress.ended, is_search
        self.running: dict[int, list[run.Entry]] = {}
        self.left: list[int] = []
        self.reason: str | None = None

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
            self.start(pool, -number, group, configs)
        return sorted({*indices} - {index for group in members for index in group})

    def start(self, pool: Pool, key: int, group: Sequence[int], configs: Mapping[int, Node]) -> None:
        """Start one group.

        Args:
            pool: of processes.
            key: of the process, below zero.
            group: indices of its jobs.
            configs: their settings, by index.
        """
        jobs, results = self.journal.jobs, self._file(key, "json")
        entries = [run.Entry(i, configs[i], jobs[i].run_dir, self.progress.log(jobs[i])) for i in group]
        self.running[key] = entries
        task = partial(run.run, entries, results, self.is_search, self.is_search)
        pool.submit(key, task, self._file(key, "log"))

    def poll(self) -> None:
        """Tell of the jobs that have left a group which still trains."""
        for key, entries in self.running.items():
            self.running[key] = self._told(entries, run.read_results(self._file(key, "json")))

    def ended(self, key: int, how: Ended) -> None:
        """Note how the process of a job, or of a group, whose keys are negative, has ended."""
        if key >= 0:
            self.tell(key, how)
            return
        results, log = self._file(key, "json"), self._file(key, "log")
        entries = self._told(self.running.pop(key), run.read_results(results))
        remove(results)
        for entry in entries:
            if summary_of(self.journal.jobs[entry.index].run_dir).get("status") == "finished":
                self.tell(entry.index, Ended(0, how.seconds / len(entries)))
            elif how.code in STOPPED or (self.is_search and how.code < 0):
                self.tell(entry.index, how)
            else:
                self._put_back(entry)
        if how.code == signature.UnsuitableError.exit_code:
            self.reason = log_tail(log).strip().removeprefix(ERROR).splitlines()[0]
        if how.code in _EXPECTED_CODES:
            remove(log)

    def _told(self, entries: Sequence[run.Entry], known: Mapping[int, tuple[int, float]]) -> list[run.Entry]:
        """Tell of the jobs whose outcome is known; the others."""
        for entry in entries:
            if entry.index in known:
                self.tell(entry.index, Ended(*known[entry.index]))
        return [entry for entry in entries if entry.index not in known]

    def _put_back(self, entry: run.Entry) -> None:
        """Note that a job has to be run alone, and put aside what it has left so far."""
        with suppress(OSError):
            entry.log.unlink(missing_ok=True)
            if entry.run_dir.exists():
                supersede(self.journal.root, entry.run_dir)
        self.left.append(entry.index)

    def _file(self, key: int, suffix: str) -> Path:
        return self.journal.root / f"population-{-key}.{suffix}"
