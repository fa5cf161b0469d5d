"""Sweeps: the whole grid is checked first, then Hydra's launcher runs one job for each combination."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mlefw import configuration, warn
from mlefw.errors import UsageError
from mlefw.run_directory import check_free, default_path
from mlefw.single import run_job

MAX_JOBS = 10_000


def run(
    command: str, overrides: Sequence[str], flags: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]
) -> int:
    """Run a sweep into a directory of its own; 0, or 5 where a job failed.

    Raises:
        UsageError: a mistake in any value of the grid; no job has run then.
    """
    overrides = configuration.opened(overrides)
    if any(override.startswith("resume=") for override in overrides):
        raise UsageError("resume= continues one run: expected it without -m")
    swept = configuration.sweep_values(overrides)
    count = math.prod(len(values) for values in swept.values())
    if count > MAX_JOBS:
        raise UsageError(f"this sweep has {count} jobs: expected at most {MAX_JOBS}")
    fixed = [override for override in overrides if override.split("=")[0].lstrip("+") not in swept]
    _check_grid(command, fixed, swept, config_dirs, plugins)
    given = [override.partition("=")[2] for override in fixed if override.startswith("run_dir=")]
    root = Path(given[-1]) if given else default_path("multirun")
    check_free(root)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    root = root.absolute()
    os.environ["MLEFW_SWEPT"] = ",".join(swept)
    kept = [override for override in overrides if not override.startswith("run_dir=")]
    sys.argv = ["mlefw", *kept, f"run_dir='{root}'", f"hydra.sweep.dir='{root}'", *flags]
    GlobalHydra.instance().clear()
    hydra.main(version_base="1.3", config_path=str(configuration.config_root()), config_name=command)(_job)()
    return _report(root, count)


def _check_grid(
    command: str,
    fixed: Sequence[str],
    swept: dict[str, list[str]],
    config_dirs: Sequence[str],
    plugins: Sequence[str],
) -> None:
    """Check each value of each swept setting once, the others at their first: a sum of checks, not a product."""
    first = {key: values[0] for key, values in swept.items()}
    tried: set[tuple[str, ...]] = set()
    for key, values in swept.items():
        for value in values:
            chosen = tuple({**first, key: value}.values())
            if chosen not in tried:
                tried.add(chosen)
                configuration.read(command, [*fixed, *chosen], config_dirs, plugins)


def _job(config: DictConfig) -> int:
    """One job, in whatever process the launcher chose; it never raises, so that the sweep goes on."""
    hydra_config = HydraConfig.get()
    command = str(hydra_config.job.config_name)
    configuration.register_plugins()
    warn.clear()
    swept = set(os.environ.get("MLEFW_SWEPT", "").split(","))
    task = [override.lstrip("+") for override in hydra_config.overrides.task]
    task = [override for override in task if override.split("=")[0] in swept]
    label = re.sub(r"[^\w=.,+-]+", "_", ",".join(task))[:120]
    run_dir = Path(str(config.run_dir)) / f"{int(hydra_config.job.num):03d}_{label}"
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    choices = {name: choice for name, choice in hydra_config.runtime.choices.items() if not name.startswith("hydra/")}
    settings: dict[str, Any] = {**{str(key): value for key, value in plain.items()}, "choices": choices}
    return run_job(command, settings, run_dir, quiet=True)


def _report(root: Path, count: int) -> int:
    """Print the ranked table; 5 if a job is missing or failed."""
    from mlefw.command import compare
    from mlefw.console import console

    out = console()
    finished = 0
    for file in root.glob("*/summary.json"):
        finished += json.loads(file.read_text(encoding="utf-8")).get("status") == "finished"
    if finished:
        out.print(compare.table(compare.run([str(root)])))
    out.print(f"sweep: {finished} of {count} jobs finished in {root}", soft_wrap=True)
    out.print(f"look:  tensorboard --logdir {root}", soft_wrap=True)
    return 0 if finished == count else 5
