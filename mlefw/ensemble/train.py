"""Trains the members of an ensemble for the command line: together if that is faster, else each in a fork."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlefw.command import ensemble
from mlefw.command.ensemble_member import Member
from mlefw.command.job import report, run_alone
from mlefw.command.outermost import finish_imports
from mlefw.configuration.read import located, moved
from mlefw.configuration.settings import Node, Settings
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.run import resume
from mlefw.run.directory import CANDIDATES, MEMBERS, summary_of
from mlefw.run.held_out import is_ensemble
from mlefw.sweep.population.dispatch import Groups
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, UnrecordedJobs, supersede
from mlefw.system.atomic import Json
from mlefw.system.fork_pool import Pool
from mlefw.system.local_path import local_path
from mlefw.system.signals import deferred
from mlefw.system.trust import trusted


def run(config: Settings, root: Path, is_resumed: bool = False) -> Json:
    """Train an ensemble into a directory, and return the summary of the mixture.

    Args:
        config: the settings of the ensemble.
        root: the directory of the ensemble.
        is_resumed: whether members in the directory that are finished are kept.

    Raises:
        UsageError: settings or data are wrong; nothing was written.
        NumericalError: no member was trained to its end.
        Stopped: a signal ended the training; `resume=` continues it.
    """
    if not hasattr(os, "fork"):
        return ensemble.run(config, root, None, is_resumed)
    return ensemble.run(config, root, partial(_train_members, config.ensemble.get("jobs")), is_resumed)


def resumed_settings(root: Path, overrides: Sequence[str]) -> Settings:
    """The settings of an ensemble that `resume=` continues.

    Args:
        root: the directory of the ensemble.
        overrides: the overrides of the command line; only `resume=` is allowed.

    Raises:
        UsageError: the directory cannot be read, or there are other overrides.
    """
    others = [item for item in overrides if not item.startswith("resume=")]
    if others:
        raise UsageError(f"{others[0]}: resume={root} goes on with an ensemble in its own settings")
    return resume.settings(root, [], [], trusted()).replaced(resume=None)


def root_of(given: str) -> Path | None:
    """The absolute path of the ensemble that `resume=` names; None if the path is not an ensemble."""
    path = local_path(given, "resume", "only a local run directory can be continued")
    has_members = (path / MEMBERS).is_dir() or any((path / CANDIDATES).glob(f"*/{MEMBERS}"))
    is_one = has_members and (path / "config.yaml").is_file() and not (path / "checkpoints").is_dir()
    return path.absolute() if is_one else None


def _train_members(size: int | None, root: Path, members: Sequence[Member]) -> dict[Path, str]:
    """Train the members that are not finished.

    Args:
        size: number of members that are trained at once; None for the number of cores.
        root: the directory of the ensemble.
        members: all members.

    Returns:
        Why members failed, by their directories.
    """
    left = {key: one for key, one in enumerate(members) if not _is_finished(one)}
    jobs = {key: Job(key, [], one.run_dir) for key, one in left.items()}
    chosen = {key: _member_settings(root, one) for key, one in left.items()}
    progress = Progress(UnrecordedJobs(root, list(jobs.values())), True, None)
    groups = Groups(progress)
    cores = topology.num_cores()
    size = min(size or cores, max(1, len(jobs)))
    with deferred(), Pool(size, max(1, cores // size), None, groups.ended) as pool:
        # One group of members that can be trained together: launching an operation of few members takes as long as of
        # many, and a second group would launch each operation again.
        anew = {key: _as_job_settings(config) for key, config in chosen.items() if not config.resume}
        alone = groups.submit(pool, anew, 1)
        _submit(pool, progress, chosen, sorted({*alone} | ({*chosen} - {*anew})))
        _submit(pool, progress, chosen, sorted(groups.left))
    return {job.run_dir: job.reason or job.status for job in jobs.values() if not job.is_done}


def _as_job_settings(config: Settings) -> Node:
    """The settings of a member like those of a job of a sweep: without its directory, which differs between members."""
    node: Node = moved(config.plain, str(config.run_dir), "${run_dir}")
    return {**node, "run_dir": None}


def _submit(pool: Pool, progress: Progress, chosen: dict[int, Settings], numbers: Sequence[int]) -> None:
    for number in numbers:
        job = progress.journal.jobs[number]
        pool.submit(number, partial(_run_member, chosen[number], job.run_dir), progress.log(job))
    pool.drain()


def _run_member(config: Settings, run_dir: Path) -> int:
    """Train one member in this process, and return its exit code."""
    return run_alone("train", lambda: config.plain, run_dir)


def _is_finished(member: Member) -> bool:
    return summary_of(member.run_dir).get("status") == "finished"


def _member_settings(root: Path, member: Member) -> Settings:
    """The settings of an unfinished member: to continue from its last checkpoint, or to start anew without one.

    Without a checkpoint, a directory of the member is moved aside.
    """
    if (member.run_dir / "checkpoints" / "last.ckpt").is_file():
        return resume.settings(member.run_dir, [], [], trusted())
    if member.run_dir.exists():
        supersede(root, member.run_dir)
    return member.config


def ensemble_settings(composed: Node, run_dir: Path) -> Settings | None:
    """The typed settings of a run in a directory if they ask for an ensemble; None for a single run.

    Args:
        composed: the composed configuration in plain containers.
        run_dir: the directory.
    """
    config = located(composed, run_dir)
    return config if is_ensemble(config) and not config.experiment else None


def run_and_report(config: Settings, run_dir: Path, is_resumed: bool = False) -> int:
    """Train an ensemble, print its results, and return the exit code."""
    finish_imports()
    return report(run(config, run_dir.absolute(), is_resumed), run_dir, quiet=False)
