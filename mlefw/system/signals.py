"""Signals that ask a command to end: training stops after the current step, everything else at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mlefw.errors import Stopped

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Signals that ask a program to end. SIGUSR1 announces that a cluster is about to take its machine back.

Windows has the first two alone.
"""

_state = {"handled": False, "deferred": False}
_pending: list[int] = []
_raised: list[int] = []


@contextmanager
def handled() -> Iterator[None]:
    """Raise `Stopped` in the block when one of `SIGNALS` arrives. Outside the main thread nothing is changed.

    Raises:
        Stopped: naming the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    _state["handled"] = True
    try:
        yield
    except Exception as error:
        if _raised:
            # Code in C++ turns a `Stopped` that is raised inside a callback of it into an error of its own.
            raise _stopped(_raised[-1]) from error
        raise
    finally:
        _state["handled"] = False
        _pending.clear()
        _raised.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def take_over() -> None:
    """Install our handlers again inside `handled`, after other code has installed its own."""
    if _state["handled"] and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _receive)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal wait for `raise_pending` while the block runs, so that no weights are left half-updated.

    A second signal raises `Stopped` at once.
    """
    _state["deferred"] = True
    try:
        yield
    finally:
        _state["deferred"] = False


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C end the work of the block early, instead of the command.

    Gives a function that says whether the work is to end. A second signal raises `Stopped` at once; any other signal
    than that of Ctrl-C does so at the end of the block.

    Raises:
        Stopped: naming the signal.
    """
    before = _state["deferred"]
    _state["deferred"] = True
    try:
        yield is_pending
    finally:
        _state["deferred"] = before
    if not before:
        if pending() not in (0, signal.SIGINT):
            raise_pending()
        _pending.clear()


def is_handled() -> bool:
    """Whether the process is inside `handled`."""
    return _state["handled"]


def is_pending() -> bool:
    """Whether a signal has come inside `handled`."""
    return bool(_pending)


def pending() -> int:
    """Number of the first signal that has come inside `handled`; 0 for none."""
    return _pending[0] if _pending else 0


def raise_pending() -> None:
    """Raise `Stopped` if a signal has come.

    Raises:
        Stopped: naming the signal.
    """
    if _pending:
        raise _stopped(_pending[0])


def reset_after_fork() -> None:
    """Leave `deferred` in a process that was forked inside it: the child stops at once at a signal."""
    _state["deferred"] = False


def signal_on_parent_death(parent: int, number: int) -> None:
    """Ask the kernel to send this process a signal when its parent dies. Linux only; elsewhere nothing happens.

    Args:
        parent: process id of the parent.
        number: the signal.

    Raises:
        Stopped: the parent is dead already.
    """
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
    # The parent may have died before the call, whose signal then never comes.
    if os.getppid() != parent:
        raise _stopped(number)


def _receive(number: int, frame: FrameType | None) -> None:
    first = not _pending
    _pending.append(number)
    if not (first and _state["deferred"]):
        _raised.append(number)
        raise _stopped(number)


def _stopped(number: int) -> Stopped:
    return Stopped(signal.Signals(number).name, 128 + number)
