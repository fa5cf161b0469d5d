"""Runs a sweep with a launcher of Hydra or of its plugins (basic, joblib, …), which may start processes itself."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mlefw.configuration.groups import register_plugins
from mlefw.configuration.hydra_internals import Callbacks
from mlefw.configuration.path_setting import literal, quoted
from mlefw.configuration.read import search_path
from mlefw.configuration.resolvers import admitted_resolvers
from mlefw.configuration.yaml_folder import config_root
from mlefw.errors import Stopped
from mlefw.run.directory import summary_of
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, Journal, UnrecordedJobs
from mlefw.sweep.task import Task
from mlefw.system import trust, warning
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred, handled, is_handled


@dataclass(frozen=True)
class Engine:
    """A launcher of Hydra or of its plugins, which starts processes itself.

    Args:
        command: the command whose settings Hydra composes.
        overrides: overrides that all jobs share, with those of Hydra's own settings.
        config_dirs: folders of further YAML files.
        root: the directory of the sweep.
    """

    command: str
    overrides: Sequence[str]
    config_dirs: Sequence[str]
    root: Path

    def run(self, task: Callable[[DictConfig], int], jobs: Sequence[Sequence[str]]) -> None:
        """Run a task for each job; a failure of the launcher itself is a warning.

        Args:
            task: called in the process that the launcher chooses, with the composed configuration.
            jobs: the overrides of each job.

        Raises:
            Stopped: a signal came.
        """
        kept = [item for item in self.overrides if item.lstrip("+").startswith("hydra")]
        settings = [*kept, f"hydra.sweep.dir={quoted(str(self.root))}", *search_path(self.config_dirs)]
        GlobalHydra.instance().clear()
        try:
            with admitted_resolvers(), hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
                opened = GlobalHydra.instance().hydra
                assert opened is not None
                config = opened.compose_config(
                    self.command, settings, run_mode=RunMode.MULTIRUN, with_log_configuration=False
                )
                context = HydraContext(config_loader=opened.config_loader, callbacks=Callbacks(config))
                launcher = Plugins.instance().instantiate_launcher(
                    hydra_context=context, task_function=task, config=config
                )
                launcher.launch(jobs, initial_job_idx=0)
        except Exception as error:  # noqa: BLE001 - a launcher may raise anything; jobs are reported all the same
            warning.warn(f"hydra/launcher: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def launch(engine: Engine, journal: Journal, tasks: Sequence[Task]) -> None:
    """Run the jobs of a grid that no earlier attempt has finished, and note their results.

    Args:
        engine: what runs them.
        journal: the jobs.
        tasks: the task of each job, in the same order.

    Raises:
        Stopped: a signal ended the sweep.
    """
    wanted = [
        [*task.overrides, f"run_dir={quoted(str(job.run_dir))}"]
        for job, task in zip(journal.jobs, tasks, strict=True)
        if not task.keep_finished(journal.root, job)
    ]
    skips = bool(tasks) and tasks[0].skips_misfits
    run = partial(_job, engine.command, tuple(engine.config_dirs), journal.root, skips, trust.named_by_user())
    try:
        if wanted:
            engine.run(run, wanted)
    finally:
        _note_results(engine.command, journal)


def _note_results(command: str, journal: Journal) -> None:
    """Note how each job ended, from the files in its directory, since launchers do not tell."""
    for job in (job for job in journal.jobs if job.status != "kept"):
        summary = summary_of(job.run_dir)
        if summary.get("status") == "finished" or (command == "baseline" and (job.run_dir / "baseline.json").is_file()):
            job.finish("finished")
        elif summary.get("status") == "skipped":
            job.skip(summary)
        elif summary or job.run_dir.is_dir():
            job.status, job.reason = "failed", str(summary.get("reason", "ended without a result"))
    journal.close()


def _job(
    command: str, config_dirs: tuple[str, ...], root: Path, skips: bool, packages: tuple[str, ...], _: DictConfig
) -> int:
    """Run one job in the process that the launcher chose; errors are in its exit code, so that the sweep goes on."""
    register_plugins()
    trust.trust_everywhere(packages)
    given = list(HydraConfig.get().overrides.task)
    run_dir = Path(literal([item for item in given if item.startswith("run_dir=")][-1].partition("=")[2]))
    task = Task(command, tuple(item for item in given if not item.startswith("run_dir=")), config_dirs, skips)
    # A launcher may start a job again whose process was lost.
    return run_forked(partial(task.begin_or_go_on, root, run_dir), Job(0, [], run_dir), command == "train")


def run_forked(task: Callable[[], int], job: Job, has_summary: bool) -> int:
    """Run a job in a fork of this process, note in its directory how it ended, and return its exit code.

    Args:
        task: runs the job and returns its exit code.
        job: the job.
        has_summary: whether a job that succeeds leaves a finished `summary.json`.

    Raises:
        Stopped: a signal has come, and this is the process of the sweep.
    """
    if not hasattr(os, "fork"):
        return task()
    import torch

    progress = Progress(UnrecordedJobs(job.run_dir.parent, [job]), has_summary, None)
    with ExitStack() as held:
        # The process of the sweep handles signals already; a worker process of a launcher does not.
        is_worker = not is_handled()
        if is_worker:
            held.enter_context(handled())
        try:
            with deferred(), Pool(1, torch.get_num_threads(), None, progress.ended) as pool:
                pool.submit(job.number, task, progress.log(job))
                pool.drain()
        except Stopped as error:
            if is_worker:
                return error.exit_code
            raise
    return job.exit_code or 0
