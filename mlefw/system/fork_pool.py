"""Tasks in processes of their own, forked from one that has imported everything already: a crash costs one task."""

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
"""What a task that took too long has for its last words."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: an exit code (minus the signal's number where it was killed), and after how long."""

    code: int
    seconds: float
    is_late: bool = False


@dataclass
class _Running:
    key: int
    child: Child
    is_late: bool = False


class Pool:
    """At most `size` tasks at once, each in a fork of this process. Use it with signals `deferred`.

    A first signal reaches every task, which may then take its time to end, and `Stopped` is raised; a second one
    kills them. No process is left when the block is left.

    Args:
        size: how many run at once.
        threads: of each task.
        timeout_s: what a task may take; None for no limit.
        ended: called with the key of a task and how it ended.
    """

    def __init__(self, size: int, threads: int, timeout_s: float | None, ended: Callable[[int, Ended], None]) -> None:
        self.size, self.threads, self.timeout_s, self.ended = size, threads, timeout_s, ended
        self.running: list[_Running] = []

    def __enter__(self) -> "Pool":
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the rest after a signal, and leave no process behind."""
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
        """Start a task as soon as there is room for it; what it prints goes to a file.

        Raises:
            Stopped: a signal has come.
        """
        signals.raise_pending()
        while len(self.running) >= self.size:
            self._wait()
            signals.raise_pending()
        child = Child(task, partial(_settle, log, self.threads), signal.SIGTERM)
        self.running.append(_Running(key, child))

    def drain(self) -> None:
        """Wait for all of them.

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


def _settle(log: Path, threads: int) -> None:
    # Be the first to go where memory ends (Linux).
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
    if threads > 1:
        limits(threads)
