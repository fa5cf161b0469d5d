"""Runs a sweep with a launcher of Hydra or of its plugins (basic, joblib, …), which may start processes itself."""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mlefw.configuration.groups import register_plugins
from mlefw.configuration.path_setting import quoted
from mlefw.configuration.read import search_path
from mlefw.configuration.resolvers import admitted_resolvers
from mlefw.configuration.yaml_folder import config_root
from mlefw.errors import Stopped
from mlefw.run.directory import summary_of
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, Journal, UnrecordedJobs, plan
from mlefw.sweep.task import Task
from mlefw.system import warning
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred, handled, is_handled


def launch(
    command: str, overrides: Sequence[str], config_dirs: Sequence[str], journal: Journal, swept: Collection[str]
) -> None:
    """Let Hydra run the jobs of a grid with the launcher that the overrides choose, and note their results.

    Args:
        command: the command that each job runs.
        overrides: the overrides of the whole grid, with those of Hydra's own settings.
        config_dirs: folders of further YAML files.
        journal: the journal of the sweep.
        swept: keys of the settings that differ between jobs.

    Raises:
        Stopped: a signal ended the sweep.
    """
    task = partial(_job, command, tuple(config_dirs), journal.root, tuple(swept))
    root = quoted(str(journal.root))
    settings = [*overrides, f"run_dir={root}", f"hydra.sweep.dir={root}", *search_path(config_dirs)]
    GlobalHydra.instance().clear()
    try:
        with admitted_resolvers(), hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
            opened = GlobalHydra.instance().hydra
            assert opened is not None
            opened.multirun(command, task, settings)
    except Exception as error:  # noqa: BLE001 - a launcher may raise anything; results of jobs are reported all the same
        warning.warn(f"hydra/launcher: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    finally:
        _note_results(command, journal)


def _note_results(command: str, journal: Journal) -> None:
    """Note how each job ended, from the files in its directory, since launchers do not tell."""
    for job in journal.jobs:
        summary = summary_of(job.run_dir)
        if summary.get("status") == "finished" or (command == "baseline" and (job.run_dir / "baseline.json").is_file()):
            job.finish("finished")
        elif summary.get("status") == "skipped":
            job.skip(summary)
        elif summary or job.run_dir.is_dir():
            job.status, job.reason = "failed", str(summary.get("reason", "ended without a result"))
    journal.close()


def _job(command: str, config_dirs: tuple[str, ...], root: Path, swept: tuple[str, ...], _: DictConfig) -> int:
    """Run one job in the process that the launcher chose; errors are in its exit code, so that the sweep goes on."""
    job_of_hydra = HydraConfig.get()
    register_plugins()
    overrides = tuple(item for item in job_of_hydra.overrides.task if not item.startswith("run_dir="))
    (job,) = plan(root, [overrides], swept, int(job_of_hydra.job.num))
    task = Task(command, overrides, config_dirs, "head" in swept)
    return run_forked(partial(task.run, job.run_dir), job, command == "train")


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
