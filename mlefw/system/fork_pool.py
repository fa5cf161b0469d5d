"""A pool that runs each task in a fork of this process, which has imported everything: a crash costs one task."""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from mlefw.errors import Stopped
from mlefw.system import signals
from mlefw.system.child import Child, wait

Task = Callable[[], int]

_GRACE_S = 10.0
"""Seconds between the SIGTERM for a task that took too long and its SIGKILL."""


@dataclass(frozen=True)
class Ended:
    """How the process of a task ended.

    Attributes:
        code: exit code, or minus the number of the signal that killed the process.
        seconds: how long it ran.
        is_late: whether it was stopped because it ran longer than the time limit.
    """

    code: int
    seconds: float
    is_late: bool = False


@dataclass
class _Running:
    key: int
    child: Child
    is_late: bool = False


class Pool:
    """Runs at most `size` tasks at once, each in a fork of this process; a context manager.

    Use it inside `signals.deferred()`: then a first signal is passed on to every task, which may take its time to end,
    and `Stopped` is raised; a second signal kills the tasks. After the block no process is left.

    Args:
        size: how many tasks run at once.
        threads: how many threads each task computes with.
        timeout_s: seconds that a task may take; None for no limit.
        ended: called with the key of each task that has ended, and how it ended.
    """

    def __init__(self, size: int, threads: int, timeout_s: float | None, ended: Callable[[int, Ended], None]) -> None:
        self.size, self.threads, self.timeout_s, self.ended = size, threads, timeout_s, ended
        self.running: list[_Running] = []

    def __enter__(self) -> "Pool":
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the running tasks, or kill them after an error other than `Stopped`."""
        try:
            if isinstance(error, Stopped):
                for one in self.running:
                    one.child.send(error.exit_code - 128)
            while self.running and (error is None or isinstance(error, Stopped)):
                self._wait()
        finally:
            for one in self.running:
                one.child.kill()
            while self.running:
                self._wait()

    def submit(self, key: int, task: Task, log: Path) -> None:
        """Wait until fewer than `size` tasks run, then start one.

        Args:
            key: number of the task, for `ended`.
            task: returns the exit code.
            log: file that is overwritten with what the task prints.

        Raises:
            Stopped: a signal has come.
        """
        signals.raise_pending()
        while len(self.running) >= self.size:
            self._wait()
            signals.raise_pending()
        child = Child(task, partial(_prepare, log, self.threads), signal.SIGTERM)
        self.running.append(_Running(key, child))

    @property
    def is_free(self) -> bool:
        """Whether another task would start at once."""
        return len(self.running) < self.size

    def wait(self) -> None:
        """Wait until a task has ended, a fraction of a second at most.

        Raises:
            Stopped: a signal has come.
        """
        signals.raise_pending()
        self._wait()

    def drain(self) -> None:
        """Wait until all tasks have ended.

        Raises:
            Stopped: a signal has come.
        """
        while self.running:
            signals.raise_pending()
            self._wait()

    def _wait(self) -> None:
        wait(one.child for one in self.running)
        for one in list(self.running):
            code, seconds = one.child.code, one.child.seconds
            if code is not None:
                one.child.kill()
                self.running.remove(one)
                self.ended(one.key, Ended(code, seconds, one.is_late))
            elif self.timeout_s is not None and seconds > self.timeout_s + (_GRACE_S if one.is_late else 0):
                if one.is_late:
                    one.child.kill()
                else:
                    one.is_late = True
                    one.child.send(signal.SIGTERM)


def _prepare(log: Path, threads: int) -> None:
    """Set up the process of a task: output into `log`, number of threads."""
    # Where memory runs out, Linux is to kill a task rather than the process that holds the pool.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, errors="replace", closefd=False) for n in (1, 2))  # noqa: SIM115
    faulthandler.enable(2)
    _use_threads(threads)


def _use_threads(threads: int) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    limits: Any = threadpool_limits
    # Commands that fork tasks limit themselves to one thread already.
    if threads > 1:
        limits(threads)
