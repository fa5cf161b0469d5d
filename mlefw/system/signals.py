"""Signals: training ends at the next clean boundary, everything else at once; a second signal never waits."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlefw.errors import Stopped

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Those that ask a program to end; Windows has the first two."""

_state = {"handled": False, "deferred": False}
_pending: list[int] = []
_raised: list[int] = []


@contextmanager
def handled() -> Iterator[None]:
    """Turn signals into `Stopped` while the block runs (in the main thread; elsewhere nothing).

    They are SIGINT, SIGTERM, SIGHUP, and SIGUSR1, by which a cluster says that it is about to take its machine back.
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
            # Code in C++ turns whatever is raised within it into an error of its own.
            raise _stopped(_raised[-1]) from error
        raise
    finally:
        _state["handled"] = False
        _pending.clear()
        _raised.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def take() -> None:
    """Handle the signals again, inside a block of `handled`, after other code has put handlers of its own."""
    if _state["handled"] and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _receive)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait for `raise_pending` while the block runs: weights are never left half-updated."""
    _state["deferred"] = True
    try:
        yield
    finally:
        _state["deferred"] = False


def is_handled() -> bool:
    """Whether signals are handled by `handled` now."""
    return _state["handled"]


def is_pending() -> bool:
    """Whether a signal has come."""
    return bool(_pending)


def pending() -> int:
    """The first signal that has come, or 0."""
    return _pending[0] if _pending else 0


def raise_pending() -> None:
    """Stop now, if a signal has come.

    Raises:
        Stopped: naming the signal.
    """
    if _pending:
        raise _stopped(_pending[0])


def forked() -> None:
    """Stop at once again in a process that was forked while signals waited in its parent."""
    _state["deferred"] = False


def end_with(parent: int, number: int) -> None:
    """Let this process get a signal when its parent dies (Linux).

    Raises:
        Stopped: the parent is dead already.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, number)
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
