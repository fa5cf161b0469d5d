"""What a process costs, from its start to its end."""

import json
import os
import subprocess
import sys
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
    # The system counts the memory of the process that starts another one as that of the other, so a small one does.
    starter = [sys.executable, "-S", str(Path(__file__).resolve()), *command]
    done = subprocess.run(starter, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    text = (folder / "printed").read_text(encoding="utf-8")
    *cost, ended = json.loads(done.stdout)
    if ended != code:
        raise FailedError((text.strip() or f"exit code {ended}").splitlines()[-1])
    return Cost(*cost), text


def main() -> None:
    """Run the command of the arguments, what it prints into a file; print its cost and exit code as JSON."""
    clock = time.perf_counter()
    with Path("printed").open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(sys.argv[1:], stdout=printed, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, process.returncode]))


if __name__ == "__main__":
    main()
