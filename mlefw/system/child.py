"""Forked child processes: start, wait, signal, kill, and the meaning of their exit codes."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import connection

from mlefw.errors import Stopped
from mlefw.system import signals

# Windows has neither SIGKILL nor fork: there this module is imported, but nothing in it is called.
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)

_POLL_S = 0.2
"""Seconds after which `wait` returns, so that its caller can look at signals, time limits and exit codes."""


class Child:
    """A fork of this process, started on construction.

    It has a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which passes the signal on.

    Args:
        task: run in the child; returns its exit code. Where it raises `Stopped`, the exit code tells the signal.
        prepare: called in the child before `task`.
        parent_death_signal: number of the signal that the child gets when its parent dies (Linux).

    Attributes:
        process: the child, as `multiprocessing` knows it.
        started: when it was started, in seconds of `time.monotonic`.
    """

    def __init__(self, task: Callable[[], int], prepare: Callable[[], None], parent_death_signal: int) -> None:
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(task, prepare, parent_death_signal, os.getpid()))
        self.started = time.monotonic()
        self.process.start()

    @property
    def code(self) -> int | None:
        """The exit code; minus the number of the signal where one killed the child; None while it runs."""
        return self.process.exitcode

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def send(self, number: int) -> None:
        """Send a signal to the child, if it still runs."""
        with suppress(ProcessLookupError):
            if self.code is None:
                os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        """Kill the child and the processes of its session, which may outlive it."""
        self.send(SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, SIGKILL)

    def join(self) -> None:
        """Wait until the child has ended."""
        self.process.join()


def wait(children: Iterable[Child], seconds: float = _POLL_S) -> None:
    """Wait until one of the children has ended, at most `seconds` long.

    A child may have ended although the wait timed out: processes that it started can hold the pipe open whose closing
    is waited for. So callers look at `Child.code` after each wait.
    """
    connection.wait([child.process.sentinel for child in children], seconds)


def killed_by(code: int) -> str:
    """The signal behind a negative exit code, in words: "killed by SIGSEGV"."""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (by hand, or out of memory)" if -code == SIGKILL else "")


def _run(task: Callable[[], int], prepare: Callable[[], None], parent_death_signal: int, parent: int) -> None:
    os.setsid()
    signals.reset_after_fork()
    try:
        signals.signal_on_parent_death(parent, parent_death_signal)
        prepare()
        code = task()
    except Stopped as error:
        code = error.exit_code
    sys.exit(code)
