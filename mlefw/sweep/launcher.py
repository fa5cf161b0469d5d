"""Hydra's launcher that forks: one process imports everything once, and each job runs in a fork of it."""

import importlib
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlefw.command.outermost import imported
from mlefw.configuration.check import accepts
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.sweep.job import Task
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, Journal, plan
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred, raise_pending

_WARM = {
    "mlefw.sweep.sweep": ("mlefw.command.train", "mlefw.command.baseline", "mlefw.command.check"),
    "mlefw.plot.style": ("matplotlib.backends.backend_agg", "rich._emoji_codes"),
    "mlefw.callback.board": ("tensorboard.plugins.hparams.metadata",),
    "mlefw.run.archive": ("torch.utils.serialization.config", "encodings.ascii"),
    "mlefw.data.bundled": ("sklearn.datasets", "sklearn.datasets.data", "sklearn.datasets.descr"),
    "mlefw.data.parquet": ("pyarrow.parquet",),
}
"""By the module that needs them, what jobs import late."""


class GridSweeper(Sweeper):
    """Every combination of the values. Each value has been checked before, so that not all jobs are composed here."""

    # Hydra takes plugins from modules of this name alone.
    __module__ = "hydra_plugins.mlefw"

    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows."""
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the jobs of the grid."""
        values: dict[str, list[str]] = {}
        for item in OverridesParser.create().parse_overrides(arguments):
            key = item.get_key_element()
            swept = item.sweep_string_iterator() if item.is_sweep_override() else [item.get_value_element_as_str()]
            values[key] = [f"{key}={value}" for value in swept]
        return [self.launcher.launch(list(itertools.product(*values.values())), initial_job_idx=0)]


class ForkLauncher(Launcher):
    """Runs the jobs of a sweep in forks of this process, and tells what became of each.

    Args:
        jobs: how many run at once; by default as many as there are cores.
        threads: of each job; by default cores / jobs.
        timeout_s: what a job may take, in seconds.
        population: whether jobs that differ in seed, learning rate or prior scale are trained together, where that is
            faster; not with a time limit.
    """

    __module__ = "hydra_plugins.mlefw"

    def __init__(
        self,
        jobs: int | None = None,
        threads: int | None = None,
        timeout_s: float | None = None,
        population: bool = True,
    ) -> None:
        if not hasattr(os, "fork"):
            raise UsageError("hydra/launcher=fork: this system has no fork; expected hydra/launcher=basic or joblib")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.size = jobs or cores
        self.threads = threads or max(1, cores // self.size)
        self.timeout_s, self.population = timeout_s, population and timeout_s is None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows."""
        self.config, self._command = config, str(config.hydra.job.config_name)
        search = hydra_context.config_loader.get_search_path().get_path()
        self._folders = tuple(str(one.path).removeprefix("file://") for one in search if one.provider == "command-line")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; each returns its exit code.

        Raises:
            Stopped: a signal ended the sweep; the journal is written.
        """
        root = Path(str(self.config.run_dir))
        jobs = plan(root, job_overrides, os.environ.get("MLEFW_SWEPT", "").split(","), initial_job_idx)
        tasks = [Task(self._command, tuple(overrides), self._folders) for overrides in job_overrides]
        _warm(tasks[0])
        journal = Journal(root, jobs)
        progress = Progress(journal, self._command == "train", self.timeout_s)
        from mlefw.sweep.population.dispatch import Groups

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
                    if task.is_kept(root, job):
                        progress.tell(job)
                    else:
                        wanted.append(index)
                alone = set(wanted)
                if self.population and self._command == "train":
                    known = {index: tasks[index].config for index in wanted if tasks[index].is_valid}
                    for index in known:
                        tasks[index].share()
                    alone -= {*known}
                    alone |= {*groups.submit(pool, known)}
                fork(sorted(alone))
                fork(sorted(groups.left))
        finally:
            journal.close()
        return [_returned(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]


def check(settings: Node) -> bool:
    """Whether the settings are those of this launcher.

    Raises:
        UsageError: one of them is out of range.
    """
    if not str(settings.get("_target_")).endswith(".ForkLauncher"):
        return False
    for name in ("jobs", "threads"):
        value = settings[name]
        if value is not None and (not accepts(int, value) or value < 1):
            raise UsageError(f"hydra.launcher.{name}={value}: expected a whole number of at least 1, or null")
    if not isinstance(settings["population"], bool):
        raise UsageError(f"hydra.launcher.population={settings['population']}: expected true or false")
    limit = settings["timeout_s"]
    if limit is not None and not (accepts(float, limit) and limit > 0):
        raise UsageError(f"hydra.launcher.timeout_s={limit}: expected a positive number of seconds, or null")
    return True


def register() -> None:
    """Make Hydra see both classes."""
    for plugin in (GridSweeper, ForkLauncher):
        Plugins.instance().register(plugin)


def _warm(task: Task) -> None:
    """Import what jobs need, and let forks share the pages of it."""
    from mlefw.run.archive import versions

    # Each job would parse them anew for its summary.
    versions()
    with suppress(UsageError):
        if task.config.get("plots"):
            from mlefw.plot.style import png, sheet

            # Fonts and the parser of formulas are found at the first picture.
            png(sheet("$10^{-1}$", "1"))
    for user, modules in _WARM.items():
        if user in sys.modules:
            for name in modules:
                importlib.import_module(name)
    imported()


def _returned(job: Job, overrides: Sequence[str]) -> JobReturn:
    result = JobReturn(overrides=list(overrides), working_dir=str(job.run_dir), status=JobStatus.COMPLETED)
    result.return_value = job.exit_code or 0
    return result
