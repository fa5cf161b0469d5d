"""Sweeps: the whole grid is checked first, then Hydra's launcher runs one job for each combination."""

import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mlefw.command.job import run_job
from mlefw.configuration.groups import config_root, register_plugins
from mlefw.configuration.hydra_settings import launcher_settings
from mlefw.configuration.override import globbed, opened, sweep_values
from mlefw.configuration.path_setting import literal, quoted
from mlefw.configuration.read import read_settings
from mlefw.configuration.resolvers import own_alone
from mlefw.configuration.settings import Node
from mlefw.errors import Stopped, UsageError
from mlefw.run.directory import check_free, default_path, summary_of
from mlefw.sweep import launcher
from mlefw.sweep.apart import run_apart
from mlefw.sweep.record import NAME, Job, Journal, folder_name, plan, read
from mlefw.system import file_system, warning
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import own

MAX_JOBS = 10_000

_MOST_ROWS = 40
"""Of the table in the terminal; `mlefw compare` shows all."""
_MOST_LETTERS = 110
"""Of why a job was skipped, which its line has told."""


def run(
    command: str, overrides: Sequence[str], flags: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]
) -> int:
    """Run a sweep into a directory of its own; 0, or 5 where a job failed, or none has a result.

    In a sweep over heads those that are not for the target are skipped, which is no failure.

    A directory that holds a sweep is gone on with: what is missing or has failed is run.

    Raises:
        UsageError: a mistake in any value of the grid; no job has run then.
        Stopped: a signal ended the sweep; what did not run is listed.
    """
    if any(override.startswith("resume=") for override in overrides):
        raise UsageError("resume= continues one run: expected it without -m")
    overrides = globbed(_with_defaults(command, overrides), config_dirs)
    overrides = opened(overrides, sweeps=True)
    launcher.register()
    swept = sweep_values(overrides)
    for key in swept:
        if key.startswith("hydra"):
            raise UsageError(f"{key}: expected one value, which is that of the whole sweep")
    count = math.prod(len(values) for values in swept.values())
    if count > MAX_JOBS:
        raise UsageError(f"this sweep has {count} jobs: expected at most {MAX_JOBS}")
    fixed = [override for override in overrides if override.split("=")[0].lstrip("+") not in swept]
    settings = [override for override in overrides if not override.startswith(("hydra.launcher", "hydra/"))]
    _check_grid(command, settings, swept, config_dirs, plugins)
    given = [override.partition("=")[2] for override in fixed if override.startswith("run_dir=")]
    root = (local_path(literal(given[-1]), "run_dir") if given else default_path("multirun")).absolute()
    first = [values[0] for values in swept.values()]
    forks = launcher.check(launcher_settings(command, [*fixed, *first], config_dirs))
    if not (forks and (root / NAME).is_file() and not root.is_symlink()):
        check_free(root)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.environ["MLEFW_SWEPT"] = ",".join(swept)
    # Hydra would end the program with a traceback of its own.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    kept = [override for override in overrides if not override.startswith("run_dir=")]
    sys.argv = ["mlefw", *kept, f"run_dir={quoted(str(root))}", f"hydra.sweep.dir={quoted(str(root))}", *flags]
    GlobalHydra.instance().clear()
    own(root)
    with locked(root):
        try:
            with own_alone():
                hydra.main(version_base="1.3", config_path=str(config_root()), config_name=command)(_job)()
        except Stopped:
            if not forks:
                _note(command, root, swept)
            _report(root, read(root))
            raise
        except Exception as error:
            if forks:
                raise
            # What its jobs have left is told all the same.
            warning.warn(f"hydra/launcher: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if not forks:
            _note(command, root, swept)
        return _report(root, read(root))


def _with_defaults(command: str, overrides: Sequence[str]) -> list[str]:
    """What is set in a sweep unless the command line says otherwise."""
    keys = {override.partition("=")[0] for override in overrides}
    more = []
    if command == "train" and not keys & {"report", "plots"}:
        # Pictures take longer than a small job; TensorBoard draws the same curves.
        more += ["report=false", "plots=false"]
    if "hydra/launcher" not in keys and not hasattr(os, "fork"):
        more.append("hydra/launcher=basic")
    elif "hydra/launcher" not in keys:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        if wanted.isdigit() and int(wanted) and "hydra.launcher.threads" not in keys:
            more.append(f"hydra.launcher.threads={wanted}")
        # Threads that a library starts when it is imported would be lost in the forks; jobs start their own.
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return [*more, *overrides]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the directory for this sweep.

    Raises:
        UsageError: another sweep holds it.
    """
    with file_system.locked(root) as is_held:
        if not is_held:
            raise UsageError(f"run_dir={root}: another sweep is running in it")
        yield


def _check_grid(
    command: str,
    overrides: Sequence[str],
    swept: dict[str, list[str]],
    config_dirs: Sequence[str],
    plugins: Sequence[str],
) -> None:
    """Check each value of each swept setting once, the others at their first: a sum of checks, not a product."""
    first = {key: values[0] for key, values in swept.items()}
    tried: set[tuple[str, ...]] = set()
    for key, values in swept.items():
        for value in values:
            chosen = {**first, key: value}
            if tuple(chosen.values()) not in tried:
                tried.add(tuple(chosen.values()))
                keys = [override.split("=")[0].lstrip("+") for override in overrides]
                task = [chosen.get(key, override) for key, override in zip(keys, overrides, strict=True)]
                _check_alone(read_settings(command, task, config_dirs, plugins))


def _check_alone(config: Node) -> None:
    cv = config.get("cv") or {}
    if "_target_" in cv and cv.get("fold") is None:
        raise UsageError("cv= runs a fit for each fold: expected it without -m, or cv.fold=0,1,2 for some of them")


def _job(config: DictConfig) -> int:
    """One job, in whatever process the launcher chose; it never raises, so that the sweep goes on."""
    hydra_config = HydraConfig.get()
    command = str(hydra_config.job.config_name)
    register_plugins()
    warning.clear()
    swept = set(os.environ.get("MLEFW_SWEPT", "").split(","))
    task = [override.lstrip("+") for override in hydra_config.overrides.task]
    task = [override for override in task if override.split("=")[0] in swept]
    run_dir = Path(str(config.run_dir)) / folder_name(int(hydra_config.job.num), task)
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    choices = {name: choice for name, choice in hydra_config.runtime.choices.items() if not name.startswith("hydra/")}
    settings: Node = {**{str(key): value for key, value in plain.items()}, "choices": choices}
    job = Job(int(hydra_config.job.num), task, run_dir)
    return run_apart(partial(run_job, command, settings, run_dir, quiet=True), job, command == "train")


def _note(command: str, root: Path, swept: dict[str, list[str]]) -> None:
    """Write down what another launcher's jobs have left."""
    jobs = plan(root, itertools.product(*swept.values()), swept)
    for job in jobs:
        summary = summary_of(job.run_dir)
        if summary.get("status") == "finished" or (command == "baseline" and (job.run_dir / "baseline.json").is_file()):
            job.finish("finished")
        elif summary.get("status") == "skipped":
            job.skip(summary)
        elif summary or job.run_dir.is_dir():
            job.status, job.reason = "failed", str(summary.get("reason", "ended without a result"))
    Journal(root, jobs).close()


def _report(root: Path, jobs: Sequence[Job]) -> int:
    """Print the ranked tables and what is missing; 5 if a job is missing or failed, or none is done."""
    from mlefw.command import compare
    from mlefw.system.terminal import console

    out = console()
    if any(job.nll_nats is not None for job in jobs):
        groups = compare.by_measure(compare.find([str(root)]))
        for summaries in groups:
            ranked = compare.rank(summaries)
            out.print(compare.table(ranked[:_MOST_ROWS]))
            if len(ranked) > _MOST_ROWS:
                out.print(f"… and {len(ranked) - _MOST_ROWS} more: mlefw compare runs={root}", soft_wrap=True)
        if len(groups) > 1:
            out.print("Densities and masses are in no common unit, and are ranked apart.", soft_wrap=True)
    missing = [job for job in jobs if not (job.is_done or job.is_skipped)]
    done, skipped = (sum(getattr(job, name) for job in jobs) for name in ("is_done", "is_skipped"))
    for job in (job for job in jobs if not job.is_done):
        reason = f": {job.reason}" if job.reason else ""
        reason = shorten(reason, _MOST_LETTERS, placeholder=" …") if job.is_skipped else reason
        out.print(f"{job.status:<8}  {job.run_dir.name}{reason}", soft_wrap=True, markup=False)
    kept = sum(job.status == "kept" for job in jobs)
    before = f" ({kept} of them before)" if kept else ""
    before += f", {skipped} skipped" if skipped else ""
    out.print(f"sweep: {done} of {len(jobs)} jobs finished{before} in {root}", soft_wrap=True)
    if missing:
        out.print("       the same command with this run_dir runs the others", soft_wrap=True)
    out.print(f"look:  tensorboard --logdir {root}", soft_wrap=True)
    return 5 if missing or not done else 0
