"""Hydra's launcher that forks: one process imports everything once, and each job runs in a fork of it."""

import gc
import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlefw import configuration, once, warn
from mlefw.errors import UsageError
from mlefw.forked import Pool
from mlefw.interrupt import deferred
from mlefw.preflight import accepts
from mlefw.single import guarded, run_job
from mlefw.sweep_progress import Progress
from mlefw.sweep_record import Job, Journal, attempts, plan, summary_of, supersede

_WARM = {
    "mlefw.sweep": ("mlefw.command.train", "mlefw.command.baseline", "mlefw.command.check"),
    "mlefw.plot.style": ("matplotlib.backends.backend_agg", "rich._emoji_codes"),
    "mlefw.callback.board": ("tensorboard.plugins.hparams.metadata",),
    "mlefw.data.bundled": ("sklearn.datasets", "sklearn.datasets.data", "sklearn.datasets.descr"),
    "mlefw.data.parquet": ("pyarrow.parquet",),
}
"""By the module that needs them, what jobs import late."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    """

    __module__ = "hydra_plugins.mlefw"

    def __init__(self, jobs: int | None = None, threads: int | None = None, timeout_s: float | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.size = jobs or cores
        self.threads = threads or max(1, cores // self.size)
        self.timeout_s = timeout_s

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
        tasks = [_Task(self._command, tuple(overrides), self._folders) for overrides in job_overrides]
        _warm(tasks[0])
        journal = Journal(root, jobs)
        progress = Progress(journal, self._command == "train", self.timeout_s)
        try:
            with deferred(), Pool(self.size, self.threads, self.timeout_s, progress.ended) as pool:
                for index, (job, task) in enumerate(zip(jobs, tasks, strict=True)):
                    if task.is_kept(root, job):
                        progress.tell(job)
                    else:
                        task.share()
                        pool.submit(index, partial(task.run, job.run_dir), progress.log(job))
                pool.drain()
        finally:
            journal.close()
        return [_returned(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]


@dataclass(frozen=True)
class _Task:
    """What a job computes, wherever it runs."""

    command: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its configuration, composed and checked as that of a single run."""
        plugins = [name for name in os.environ.get("MLEFW_PLUGINS", "").split(",") if name]
        plugins += configuration.installed_plugins()
        return configuration.read(self.command, self.overrides, self.config_dirs, plugins)

    def run(self, run_dir: Path) -> int:
        """Run it in this process; its exit code."""
        code = 0

        def work() -> None:
            nonlocal code
            warn.clear()
            code = run_job(self.command, self.config, run_dir, quiet=True)

        return guarded(work) or code

    def share(self) -> None:
        """Do here what jobs have in common, where it is little work by code of ours."""
        with suppress(Exception), once.remembering():
            # Whatever goes wrong, the job itself meets it and says so.
            if self.command != "check" and once.is_little(self.config):
                from mlefw.preparation import share

                share(self.config)

    def is_kept(self, root: Path, job: Job) -> bool:
        """Whether an earlier attempt has finished it with these very settings; attempts that failed are put aside."""
        with suppress(UsageError):
            # Composed here, it is there in the fork; what is wrong with it the job itself will say.
            _ = self.config
        for path in attempts(root, job):
            summary = summary_of(path)
            if summary.get("status") != "finished":
                supersede(root, path)
            elif self._has_written(path):
                job.run_dir = path
                job.finish("kept")
                return True
        return False

    def _has_written(self, path: Path) -> bool:
        try:
            written = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), _LOADER)
            return bool(configuration.resolve({**self.config, "run_dir": written["run_dir"]}) == written)
        except (OSError, yaml.YAMLError, KeyError, TypeError, UsageError):
            # Whatever it is, it is not a run with these settings: the job itself meets it and says so.
            return False


def check(settings: dict[str, Any]) -> bool:
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
    limit = settings["timeout_s"]
    if limit is not None and not (accepts(float, limit) and limit > 0):
        raise UsageError(f"hydra.launcher.timeout_s={limit}: expected a positive number of seconds, or null")
    return True


def register() -> None:
    """Make Hydra see both classes."""
    for plugin in (GridSweeper, ForkLauncher):
        Plugins.instance().register(plugin)


def _warm(task: _Task) -> None:
    """Import what jobs need, and let forks share the pages of it."""
    with suppress(UsageError):
        if task.config.get("plots"):
            from mlefw.plot.style import png, sheet

            # Fonts and the parser of formulas are found at the first picture.
            png(sheet("$10^{-1}$", "1"))
    for user, modules in _WARM.items():
        if user in sys.modules:
            for name in modules:
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _returned(job: Job, overrides: Sequence[str]) -> JobReturn:
    result = JobReturn(overrides=list(overrides), working_dir=str(job.run_dir), status=JobStatus.COMPLETED)
    result.return_value = job.exit_code or 0
    return result
