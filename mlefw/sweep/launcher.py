"""The launcher that forks: one process imports everything once, and each job runs in a fork of it."""

import os
from collections.abc import Iterable, Sequence
from functools import partial

from mlefw.command.outermost import finish_imports
from mlefw.configuration.check import accepts
from mlefw.configuration.settings import Node
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Journal
from mlefw.sweep.task import Task
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred, raise_pending


class ForkLauncher:
    """Runs the jobs of a sweep in forks of this process, and reports what became of each.

    Args:
        jobs: number of jobs that run at once; by default the number of cores.
        threads: threads of each job; by default cores / jobs.
        timeout_s: time limit of a job in seconds; None for none.
        population: whether jobs that differ only in numbers that are data to a step (`signature`) are trained together
            if that is faster; never with a time limit, which could not end one job alone.

    Raises:
        UsageError: the system has no fork.
    """

    def __init__(
        self,
        jobs: int | None = None,
        threads: int | None = None,
        timeout_s: float | None = None,
        population: bool = True,
    ) -> None:
        if not hasattr(os, "fork"):
            raise UsageError("hydra/launcher=fork: this system has no fork; expected hydra/launcher=basic or joblib")
        cores = topology.num_cores()
        self.size = jobs or cores
        self.threads = threads or max(1, cores // self.size)
        self.timeout_s, self.population = timeout_s, population and timeout_s is None

    @classmethod
    def of(cls, settings: Node) -> "ForkLauncher | None":
        """The launcher that settings describe; None if they describe another one, which Hydra builds.

        Args:
            settings: the section `hydra.launcher`.

        Raises:
            UsageError: a setting is out of range.
        """
        if settings.get("_target_") != "mlefw.sweep.launcher.ForkLauncher":
            return None
        for name in ("jobs", "threads"):
            value = settings[name]
            if value is not None and (not accepts(int, value) or value < 1):
                raise UsageError(f"hydra.launcher.{name}={value}: expected a whole number of at least 1, or null")
        if not isinstance(settings["population"], bool):
            raise UsageError(f"hydra.launcher.population={settings['population']}: expected true or false")
        limit = settings["timeout_s"]
        if limit is not None and not (accepts(float, limit) and limit > 0):
            raise UsageError(f"hydra.launcher.timeout_s={limit}: expected a positive number of seconds, or null")
        return cls(**{name: value for name, value in settings.items() if name != "_target_"})

    def launch(self, command: str, journal: Journal, tasks: Sequence[Task]) -> None:
        """Run the tasks, and note in the journal what became of them.

        Args:
            command: the command that each job runs.
            journal: the jobs.
            tasks: the task of each job, in the same order.

        Raises:
            Stopped: a signal ended the sweep; the journal is written.
        """
        jobs = journal.jobs
        progress = Progress(journal, command == "train", self.timeout_s)
        # Imported before the first fork, so that forks share the memory of torch and Lightning.
        from mlefw.sweep.population.dispatch import Groups

        finish_imports()
        groups = Groups(progress)
        try:
            with deferred(), Pool(self.size, self.threads, self.timeout_s, groups.ended) as pool:

                def fork(indices: Iterable[int]) -> None:
                    for index in indices:
                        tasks[index].share()
                        task = partial(tasks[index].run, jobs[index].run_dir)
                        pool.submit(index, task, progress.log(jobs[index]))
                    pool.drain()

                wanted = []
                for index, (job, task) in enumerate(zip(jobs, tasks, strict=True)):
                    raise_pending()
                    if task.keep_finished(journal.root, job):
                        progress.print_line(job)
                    else:
                        wanted.append(index)
                alone = set(wanted)
                if self.population and command == "train":
                    known = {index: tasks[index].config for index in wanted if tasks[index].is_valid}
                    for index in known:
                        tasks[index].share()
                    alone -= {*known}
                    alone |= {*groups.submit(pool, known)}
                fork(sorted(alone))
                fork(sorted(groups.left))
        finally:
            journal.close()
