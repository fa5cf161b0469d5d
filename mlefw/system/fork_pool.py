"""Tasks in processes of their own, forked from one that has imported everything already: a crash costs one task."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from mlefw.errors import Stopped
from mlefw.system import signals

Task = Callable[[], int]

_TICK_S = 0.2
"""How often a waiting parent looks for signals, time limits and processes that ended without a word."""

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
    process: BaseProcess
    started: float = field(default_factory=time.monotonic)
    is_late: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


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
                    _send(one.process, error.exit_code - 128)
            while self.running and (error is None or isinstance(error, Stopped)):
                self._wait()
        finally:
            for one in self.running:
                _kill(one.process)
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
        process = multiprocessing.get_context("fork").Process(
            target=_child, args=(task, log, self.threads, os.getpid())
        )
        process.start()
        self.running.append(_Running(key, process))
        with suppress(OSError):
            os.setpgid(process.pid or 0, process.pid or 0)

    def drain(self) -> None:
        """Wait for all of them.

        Raises:
            Stopped: a signal has come.
        """
        while self.running:
            signals.raise_pending()
            self._wait()

    def _wait(self) -> None:
        # A task's own children may hold its sentinel open, so that its exit code is asked for as well.
        connection.wait([one.process.sentinel for one in self.running], _TICK_S)
        for one in list(self.running):
            code = one.process.exitcode
            if code is not None:
                _kill(one.process)
                self.running.remove(one)
                self.ended(one.key, Ended(code, one.seconds, one.is_late))
            elif self.timeout_s is not None and one.seconds > self.timeout_s + (_GRACE_S if one.is_late else 0):
                if one.is_late:
                    _kill(one.process)
                else:
                    one.is_late = True
                    _send(one.process, signal.SIGTERM)


def _send(process: BaseProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid or 0, number)


def _kill(process: BaseProcess) -> None:
    """End a process and those it started: they are a group of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)


def _child(task: Task, log: Path, threads: int, parent: int) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)
    signals.forked()
    try:
        _settle(log, threads, parent)
        code = task()
    except Stopped as error:
        code = error.exit_code
    sys.exit(code)


def _settle(log: Path, threads: int, parent: int) -> None:
    _end_with(parent)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, errors="replace", closefd=False) for n in (1, 2))  # noqa: SIM115
    faulthandler.enable(2)
    _use_threads(threads)


def _end_with(parent: int) -> None:
    """Let the task get a SIGTERM when its parent dies, and be the first to go where memory ends (Linux)."""
    signals.end_with(parent, signal.SIGTERM)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _use_threads(threads: int) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    limits: Any = threadpool_limits
    if threads > 1:
        limits(threads)
