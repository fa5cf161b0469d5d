"""Runs a cross-validation: each fold in a process of its own, as jobs of a sweep are; then collects their results."""

import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from mlefw.baseline.least_squares import LeastSquares
from mlefw.command.job import run_alone
from mlefw.command.outermost import finish_imports
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.read import as_yaml, located
from mlefw.configuration.settings import Node, Settings
from mlefw.cv import exact
from mlefw.cv.base import Scheme
from mlefw.cv.loo import LeaveOneOut
from mlefw.cv.results import ExactScores, Plan, gather
from mlefw.cv.table import fold_table
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.report.observation import nats
from mlefw.report.references import against
from mlefw.run import build, held_out
from mlefw.run.directory import check_free, locked
from mlefw.run.source import open_source
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, UnrecordedJobs
from mlefw.system import warning
from mlefw.system.atomic import Json, write_json, write_text
from mlefw.system.fork_pool import Ended, Pool
from mlefw.system.own_folder import mark_own
from mlefw.system.signals import deferred
from mlefw.system.terminal import console

MAX_FOLDS = 10_000


def run(command: str, composed: Node, root: Path) -> int:
    """Fit each fold, and write `cv.json` and `rows.parquet`; the exit code is 0, or 5 if a fold could not be fitted.

    Args:
        command: `train` or `baseline`.
        composed: the composed configuration, with `cv.fold` null.
        root: the directory of the cross-validation, in which each fold has a directory.

    Raises:
        UsageError: settings or data are wrong; nothing was written.
        Stopped: a signal ended the cross-validation.
    """
    config = located(composed, root)
    check_free(root)
    _check(command, config)
    finish_imports()
    source = open_source(config)
    table = source.read()
    folds = held_out.all_folds(config.cv, source, table)
    data = build.coded_data(config, source, table, lambda: held_out.all_training(table))
    plan = Plan.of(command, config, source, table, data, folds)
    known = _exact_scores(command, config, plan)
    wanted = [number for number in range(len(folds)) if known is None or number in known.unknown]
    if len(wanted) > MAX_FOLDS:
        raise UsageError(f"cv={config.choice('cv')}: {len(wanted)} fits, expected at most {MAX_FOLDS}")
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    mark_own(root)
    root = root.absolute()
    with locked(root):
        write_text(root / "config.yaml", as_yaml(config.plain))
        plan.write(root, {})
        width = len(str(max(len(folds) - 1, 0)))
        jobs = [Job(k, [f"cv.fold={k}"], root / f"fold_{k:0{width}d}") for k in wanted]
        _fit(command, composed, root, jobs, config.cv.get("jobs"))
        content, scored = gather(plan, jobs, known)
        plan.write(root, scored)
        content["warnings"] = warning.collected()
        write_json(root / "cv.json", content)
    _show(content, root)
    return 0 if content["status"] == "finished" else 5


def _check(command: str, config: Settings) -> None:
    if config.experiment:
        raise UsageError("cv= and experiment= are both many fits: expected one of them")
    if topology.num_to_start(config.trainer) > 1:
        raise UsageError("cv= runs a fold on one device each: expected trainer.devices=1")
    if command == "baseline" and not config.baseline.get("_target_"):
        raise UsageError("baseline=none: there is nothing to estimate; expected baseline=linear")


def _exact_scores(command: str, config: Settings, plan: Plan) -> ExactScores | None:
    """Scores by the exact formula for leave-one-out of least squares; None if it does not apply."""
    scheme: Scheme = instantiate("cv", config.cv)
    if command != "baseline" or type(scheme) is not LeaveOneOut or plan.split.rule == "group":
        return None
    solvers = config.baseline.get("solvers")
    if solvers and solvers[0].get("_target_", "").rpartition(".")[2] != LeastSquares.__name__:
        return None
    return ExactScores(*exact.leave_one_out(config, plan.data)) if exact.supports(config, plan.data) else None


def _fit(command: str, composed: Node, root: Path, jobs: list[Job], size: int | None) -> None:
    """Run the folds, each in a fork of this process, or one after another here on a system without forks.

    Args:
        command: `train` or `baseline`.
        composed: the composed configuration.
        root: the directory of the cross-validation.
        jobs: the folds.
        size: number of folds that run at once; None for the number of cores.
    """
    progress = Progress(UnrecordedJobs(root, jobs), command == "train", None)
    tasks = {job.number: partial(_run_fold, command, composed, job) for job in jobs}
    if not hasattr(os, "fork"):
        _fit_in_turn(jobs, tasks, progress)
        return
    cores = topology.num_cores()
    size = size or cores
    with deferred(), Pool(size, max(1, cores // size), None, progress.ended) as pool:
        for job in jobs:
            pool.submit(job.number, tasks[job.number], progress.log(job))
        pool.drain()


def _fit_in_turn(jobs: Iterable[Job], tasks: dict[int, Any], progress: Progress) -> None:
    for job in jobs:
        clock = time.monotonic()
        code = tasks[job.number]()
        progress.ended(job.number, Ended(code, time.monotonic() - clock))


def _run_fold(command: str, composed: Node, job: Job) -> int:
    """Run one fold in this process, and return its exit code."""
    settings = {**composed, "cv": {**composed["cv"], "fold": job.number}}
    return run_alone(command, lambda: settings, job.run_dir)


def _show(content: Json, root: Path) -> None:
    out = console()
    out.print(fold_table(content))
    difference = content.get("difference")
    if difference is not None:
        errors = {name: value for name, value in difference.items() if name.endswith("_se")}
        name = max(errors, key=lambda key: errors[key], default=None)
        if name is not None:
            said = against(
                content["baseline"]["name"], difference["nats"], errors[name], "held-out rows", nats(content)
            )
            said = said.replace("The model", f"The {content['name']}", 1)
            out.print(f"{said} Standard error: {name.removesuffix('_se')}.", soft_wrap=True, markup=False)
    for one in content["failed"]:
        out.print(f"fold {one['number']} was not fitted: {one['reason']}", soft_wrap=True, markup=False)
    out.print(f"written: {root / 'cv.json'}, {root / 'rows.parquet'}", soft_wrap=True, markup=False)
