"""Start the ranks of a run on one machine as forks of this process, and end all of them with the first."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGTERM

from mlefw.distributed import topology
from mlefw.errors import KilledError, LostRankError, UsageError
from mlefw.system import signals
from mlefw.system.child import SIGKILL, Child, killed_by, wait
from mlefw.system.inert_text import escaped

_GRACE_S = 5.0
"""Seconds after the failure of another rank until rank 0 gets SIGTERM, and from then until it gets SIGKILL."""


def run(task: Callable[[], int], count: int) -> int:
    """Run a task in `count` forks of this process as the ranks of one run, and return the exit code of the run.

    Rank 0 alone prints and writes files, so a signal is passed on to it alone; when it has ended, the other ranks are
    killed. Where another rank fails first, rank 0 is ended, and the error messages of the failed rank are printed.

    Args:
        task: what each rank runs; returns its exit code.
        count: number of ranks.

    Raises:
        KilledError: the rank that decides the exit code was killed by a signal.
        UsageError: this system has no fork.
    """
    if not hasattr(os, "fork"):
        raise UsageError("several devices are processes started by fork, which this system lacks: expected devices=1")
    with tempfile.TemporaryDirectory() as folder, signals.deferred():
        error_logs = [Path(folder) / f"{number}" for number in range(count)]
        ranks = _start(task, error_logs)
        try:
            failed = _watch(ranks)
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
        first = ranks[0].code or 0
        if failed is None or first not in (LostRankError.exit_code, 128 + SIGTERM, -SIGTERM, -SIGKILL):
            return _exit_code(0, first)
        sys.stderr.write(escaped(error_logs[failed].read_text(encoding="utf-8", errors="replace")))
        return _exit_code(failed, ranks[failed].code or LostRankError.exit_code)


def _start(task: Callable[[], int], error_logs: list[Path]) -> list[Child]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = len(error_logs)
    return [Child(task, partial(_prepare, number, count, port, error_logs[number]), SIGKILL) for number in range(count)]


def _watch(ranks: list[Child]) -> int | None:
    """Wait until rank 0 has ended; the number of another rank that failed before it, or None."""
    first, failed, is_passed_on = ranks[0], None, False
    deadline, orders = float("inf"), [SIGTERM, SIGKILL]
    while first.code is None:
        wait(rank for rank in ranks if rank.code is None)
        if signals.is_pending() and not is_passed_on:
            is_passed_on = True
            first.send(signals.pending())
        if failed is None and not first.code and (failed := _failed_rank(ranks)) is not None:
            deadline = time.monotonic() + _GRACE_S
        if time.monotonic() > deadline and orders:
            first.send(orders.pop(0))
            deadline += _GRACE_S
    if failed is None and first.code == LostRankError.exit_code:
        # Rank 0 has noticed a lost rank and ended before that rank was seen to end here.
        wait(ranks[1:], _GRACE_S)
        failed = _failed_rank(ranks)
    return failed


def _failed_rank(ranks: list[Child]) -> int | None:
    """The number of the rank above 0 that failed first, or None.

    A rank that ended because it had lost another one is named only where no other has failed.
    """
    lost = [number for number, rank in enumerate(ranks) if number and rank.code]
    return min(lost, key=lambda number: (ranks[number].code == LostRankError.exit_code, number), default=None)


def _exit_code(number: int, code: int) -> int:
    """The exit code of a rank; a `KilledError` where a signal killed it."""
    if code >= 0:
        return code
    raise KilledError(f"process {number} of the run was {killed_by(code)}", 128 - code)


def _prepare(number: int, count: int, port: int, error_log: Path) -> None:
    """Set up the process of a rank: its number for torch and Lightning, and where it prints to."""
    topology.set_rank(number, count, port)
    if number > 0:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = error_log.open("w", buffering=1, encoding="utf-8")
