"""What a process costs, from its start to its end."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds on the clock, seconds of all its processors, and the most memory it held, in MiB."""

    wall: float
    cpu: float
    memory: float


class FailedError(Exception):
    """A process did not end as it should have; its last words."""


def run(command: Sequence[str], folder: Path, settings: Mapping[str, str], code: int = 0) -> tuple[Cost, str]:
    """Run a command in a folder, on one thread, with some variables set: its cost, and what it printed.

    Raises:
        FailedError: it ended with another exit code.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    clock = time.perf_counter()
    with (folder / "printed").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, cwd=folder, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode != code:
        raise FailedError((text.strip() or f"exit code {process.returncode}").splitlines()[-1])
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), text
