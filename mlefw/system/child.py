"""A process forked from this one: started, waited for, signalled, ended with its own children, and how it ended."""

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

# Windows has none, and no fork either; there this module is only imported.
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)

_TICK_S = 0.2
"""How often a waiting parent looks for signals, time limits and processes that ended without a word."""


class Child:
    """A fork of this process, in a session of its own.

    So a signal from the terminal reaches the parent alone, which passes it on.

    Args:
        task: returns the exit code; where it raises `Stopped`, the code is that of the signal.
        settle: called in the new process before the task.
        orphaned: the signal that the process gets where its parent dies (Linux).
    """

    def __init__(self, task: Callable[[], int], settle: Callable[[], None], orphaned: int) -> None:
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(task, settle, orphaned, os.getpid()))
        self.started = time.monotonic()
        self.process.start()

    @property
    def code(self) -> int | None:
        """Its exit code, minus the number of the signal that killed it; None while it runs."""
        return self.process.exitcode

    @property
    def seconds(self) -> float:
        """For how long it has been there."""
        return time.monotonic() - self.started

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            if self.code is None:
                os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        """End it, and the processes that it has started, which may be there when it is not."""
        self.send(SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, SIGKILL)

    def join(self) -> None:
        """Wait for its end."""
        self.process.join()


def wait(children: Iterable[Child], seconds: float = _TICK_S) -> None:
    """Wait until one of them has ended, but not for longer than so many seconds.

    What tells of an end may be held open by processes that the child has started: ask for its `code` even so.
    """
    connection.wait([child.process.sentinel for child in children], seconds)


def killed_by(code: int) -> str:
    """What killed a process with this (negative) exit code, in words that follow the name of the process."""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (by hand, or out of memory)" if -code == SIGKILL else "")


def _run(task: Callable[[], int], settle: Callable[[], None], orphaned: int, parent: int) -> None:
    os.setsid()
    signals.forked()
    try:
        signals.end_with(parent, orphaned)
        settle()
        code = task()
    except Stopped as error:
        code = error.exit_code
    sys.exit(code)
