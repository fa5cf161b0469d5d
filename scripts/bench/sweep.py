"""What a job of a sweep costs: jobs trained together and forked jobs against Hydra's basic launcher, in one run.

    OMP_NUM_THREADS=1 python scripts/bench/sweep.py [--jobs 20 64] [--rounds 3] [--of tiny | steps | wide]
    OMP_NUM_THREADS=1 python scripts/bench/sweep.py --jobs 256 --settings trainer.max_epochs=30 …

Each job trains a network on the diabetes data: `tiny` one of four hidden units for 20 steps; `steps` the same for 300
steps of 32 rows, each of its 34 epochs evaluated; `wide` as many with two layers of 64.
Launchers take turns, a round each; the least of the rounds counts.
A job's cost is the slope between a sweep of two jobs and one of many, so that imports
and the check of the grid are in `start`. CPU seconds are those of all processes. `training` is `fit_s` of the jobs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

TINY = ("model.hidden=[4]", "batch.size=14", "trainer.max_epochs=1")
_STEPS = ("batch.size=32", "trainer.max_epochs=34", "early_stopping.patience=null")
KINDS = {
    "tiny": TINY,
    "steps": ("model.hidden=[4]", *_STEPS),
    "wide": ("model.hidden=[64,64]", *_STEPS),
}
LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "fork, one at a time": ("hydra.launcher.jobs=1", "hydra.launcher.population=false"),
    "fork": ("hydra.launcher.population=false",),
    "population": (),
}


class Cost(NamedTuple):
    """Seconds of a sweep: on the clock, of the processors, and the median job's training."""

    wall: float
    cpu: float
    fit: float


def sweep(settings: tuple[str, ...], num_jobs: int) -> Cost:
    """Run one in a directory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlefw.cli", "train", "-m", f"seed=range(0,{num_jobs})", *settings]
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*command, f"run_dir={folder}/s"], check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
        times = [json.loads(file.read_text())["time"] for file in Path(folder).glob("s/*/summary.json")]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, statistics.median(time["fit_s"] for time in times))


def least(costs: list[Cost]) -> Cost:
    """Each figure at its best."""
    return Cost(*(min(column) for column in zip(*costs, strict=True)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[20, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--of", choices=KINDS, default="tiny")
    parser.add_argument("--settings", nargs="+", help="instead of those of a kind")
    given = parser.parse_args()
    settings = given.settings or KINDS[given.of]
    sizes = [2, *given.jobs]
    found: dict[tuple[str, int], list[Cost]] = {(name, size): [] for name in given.launchers for size in sizes}
    for _ in range(given.rounds):
        for name, size in found:
            found[name, size].append(sweep((*settings, *LAUNCHERS[name]), size))
    table = Table(title=f"{os.cpu_count()} cores; milliseconds a job", title_justify="left")
    for column in (
        "launcher",
        "jobs",
        "start, s",
        "whole sweep, s",
        "a job, clock",
        "a job, CPU",
        "training",
        "clock v first",
        "CPU v first",
    ):
        table.add_column(column, justify="left" if column == "launcher" else "right")
    for size in given.jobs:
        base = least(found[given.launchers[0], size])
        for name in given.launchers:
            many, few = least(found[name, size]), least(found[name, 2])
            wall, cpu = ((many[k] - few[k]) / (size - 2) for k in (0, 1))
            cells = (f"{few.wall - 2 * wall:.1f}", f"{many.wall:.1f}", f"{1e3 * wall:.0f}", f"{1e3 * cpu:.0f}")
            table.add_row(
                name,
                str(size),
                *cells,
                f"{1e3 * many.fit:.0f}",
                f"{many.wall / base.wall:.2f}",
                f"{many.cpu / base.cpu:.2f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
