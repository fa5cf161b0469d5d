"""Sweeps: the values of the grid are checked first, then a launcher runs one job for each combination."""

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlefw.configuration.hydra_settings import sweep_settings
from mlefw.configuration.override import expand_globs, for_hydra, is_swept, sweep_values
from mlefw.configuration.path_setting import literal
from mlefw.configuration.read import read_settings
from mlefw.configuration.settings import Node
from mlefw.errors import Stopped, UsageError
from mlefw.run.directory import check_free, default_path
from mlefw.sweep import hydra_launcher
from mlefw.sweep.conclusion import conclude, print_results
from mlefw.sweep.launcher import ForkLauncher
from mlefw.sweep.record import NAME, Journal, plan, read
from mlefw.sweep.search.settings import SearchSettings, of_sweeper
from mlefw.sweep.task import Task
from mlefw.system import file_system
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own

MAX_JOBS = 10_000


def run(command: str, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> int:
    """Run a sweep; the exit code is 0, or 5 if a job failed or none has a result.

    In a sweep over heads those that cannot model the target are skipped, which is no failure. In a `run_dir` that holds
    a sweep already, jobs that are missing or have failed are run.

    Args:
        command: the command that each job runs.
        overrides: the overrides of the command line.
        config_dirs: folders of further YAML files.
        plugins: packages from which classes may come.

    Raises:
        UsageError: a value of the grid is wrong; no job has run then.
        Stopped: a signal ended the sweep; jobs that did not run are listed.
    """
    if any(override.startswith("resume=") for override in overrides):
        raise UsageError("resume= continues one run: expected it without -m")
    asked = [override.lower() for override in overrides]
    overrides = expand_globs(_with_defaults(command, overrides), config_dirs)
    overrides = for_hydra(of_sweeper(overrides), sweeps=True)
    if any(re.match(r"\+*hydra[/.]sweeper(?!=basic$)", override) for override in overrides):
        return _search(command, overrides, config_dirs, plugins, draws=_draws(command, asked))
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
    first = [values[0] for values in swept.values()]
    launcher, _ = sweep_settings(command, [*fixed, *first], config_dirs)
    forks = ForkLauncher.of(launcher)
    root = _root(fixed, NAME)
    grid = _grid([override for override in overrides if not override.startswith(("run_dir=", "hydra"))])
    jobs = plan(root, grid, swept)
    with locked(root):
        try:
            tasks = [Task(command, task, tuple(config_dirs), "head" in swept) for task in grid]
            if forks:
                forks.launch(command, Journal(root, jobs), tasks)
            else:
                engine = hydra_launcher.Engine(command, overrides, config_dirs, root)
                hydra_launcher.launch(engine, Journal(root, jobs), tasks)
        except Stopped:
            print_results(root, read(root))
            raise
        return conclude(root, read(root), _draws(command, asked))


def _search(
    command: str, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str], draws: bool
) -> int:
    """Run a search (`hydra/sweeper=search`); the exit code is as that of `run`."""
    from mlefw.sweep.search import engines, search
    from mlefw.sweep.search.participation import take_part
    from mlefw.sweep.search.space import Space
    from mlefw.sweep.search.study import JOURNAL, check_installed

    fixed = [item for item in overrides if not is_swept(item)]
    launcher, sweeper = sweep_settings(command, fixed, config_dirs)
    settings, forks = SearchSettings.of(sweeper), ForkLauncher.of(launcher)
    if settings is None or command != "train":
        raise UsageError("hydra/sweeper: expected search, with mlefw train; or none, for a grid")
    check_installed(settings)
    if settings.group_size > 1 and forks and forks.timeout_s is not None:
        raise UsageError(
            f"hydra.launcher.timeout_s={forks.timeout_s:g} ends single trials, and trials of search.population train "
            "together: expected one of both"
        )
    own = [item for item in overrides if not re.match(r"\+*(hydra|run_dir=)", item)]
    space = Space.of(own)
    configs = [read_settings(command, trial, config_dirs, plugins) for trial in space.extremes()]
    max_epochs = search.check(settings, configs)
    root = _root(fixed, JOURNAL)
    wanted = search.Search(root, settings, space, tuple(config_dirs), max_epochs)
    try:
        if forks:
            jobs = take_part(wanted, forks)
        else:
            jobs = engines.search(hydra_launcher.Engine(command, overrides, config_dirs, root), wanted)
    except Stopped:
        print_results(root, read(root))
        raise
    return conclude(root, jobs, draws)


def _draws(command: str, asked: Sequence[str]) -> bool:
    """Whether a report is drawn at the end."""
    return command == "train" and not {"report=false", "plots=false"} & {*asked}


def _root(overrides: Sequence[str], file: str | None) -> Path:
    """The directory of a sweep, which is made unless it holds a file of an earlier one.

    Raises:
        UsageError: it is no new or empty directory otherwise.
    """
    given = [override.partition("=")[2] for override in overrides if override.startswith("run_dir=")]
    root = (local_path(literal(given[-1]), "run_dir") if given else default_path("multirun")).absolute()
    if file is None or not (root / file).is_file() or root.is_symlink():
        check_free(root)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    mark_own(root)
    return root


def _grid(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """The overrides of each job, one for each combination of values. If a setting is repeated, the last one counts."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        values |= sweep_values([override]) or {override.partition("=")[0].lstrip("+"): [override]}
    return list(itertools.product(*values.values()))


def _with_defaults(command: str, overrides: Sequence[str]) -> list[str]:
    """The overrides with the defaults of a sweep before them.

    Numerical libraries that this process imports afterwards start no threads if it forks.
    """
    keys = {override.partition("=")[0] for override in overrides}
    more = []
    if command == "train" and not keys & {"report", "plots"}:
        # Pictures take longer than a small job, and TensorBoard draws the same curves.
        more += ["report=false", "plots=false"]
    if "hydra/launcher" not in keys and not hasattr(os, "fork"):
        more.append("hydra/launcher=basic")
    elif "hydra/launcher" not in keys:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        if wanted.isdigit() and int(wanted) and "hydra.launcher.threads" not in keys:
            more.append(f"hydra.launcher.threads={wanted}")
        # Forked processes lack the threads that a library starts on import; jobs start threads themselves.
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return [*more, *overrides]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock the directory of a sweep while the block runs.

    Raises:
        UsageError: another sweep has locked it.
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
    """Check each value of each swept setting, with the other settings at their first values.

    The number of checks is the sum of the numbers of values, where the grid has their product.

    Raises:
        UsageError: settings are wrong.
    """
    first = {key: values[0] for key, values in swept.items()}
    tried: set[tuple[str, ...]] = set()
    for key, values in swept.items():
        for value in values:
            chosen = {**first, key: value}
            if tuple(chosen.values()) not in tried:
                tried.add(tuple(chosen.values()))
                keys = [override.split("=")[0].lstrip("+") for override in overrides]
                task = [chosen.get(key, override) for key, override in zip(keys, overrides, strict=True)]
                _check_single_fold(read_settings(command, task, config_dirs, plugins))


def _check_single_fold(config: Node) -> None:
    """Check that a job is not a whole cross-validation, which has jobs of its own."""
    cv = config.get("cv") or {}
    if "_target_" in cv and cv.get("fold") is None:
        raise UsageError("cv= runs a fit for each fold: expected it without -m, or cv.fold=0,1,2 for some of them")
