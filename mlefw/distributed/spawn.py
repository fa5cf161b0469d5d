"""The ranks of a run on one machine: each knows its number, and none outlives the others."""

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
"""How long the first process has to find out that another one is lost, before it is asked to end, and then made to."""


def run(task: Callable[[], int], count: int) -> int:
    """Run a task in `count` forks of this process, as the ranks of one run; the exit code of the run.

    The first rank speaks and writes, so a signal goes to it alone; when it has ended, the others are. Where another
    one fails first, the first is told, and what the other had to say is printed.

    Raises:
        KilledError: a rank was killed.
    """
    if not hasattr(os, "fork"):
        raise UsageError("trainer.strategy=ddp starts processes by fork, which this system lacks: expected devices=1")
    with tempfile.TemporaryDirectory() as folder, signals.deferred():
        said = [Path(folder) / f"{number}" for number in range(count)]
        ranks = _start(task, said)
        try:
            failed = _watch(ranks)
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
        first = ranks[0].code or 0
        if failed is None or first not in (LostRankError.exit_code, 128 + SIGTERM, -SIGTERM, -SIGKILL):
            return _told(0, first)
        sys.stderr.write(escaped(said[failed].read_text(encoding="utf-8", errors="replace")))
        return _told(failed, ranks[failed].code or LostRankError.exit_code)


def _start(task: Callable[[], int], said: list[Path]) -> list[Child]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = len(said)
    return [Child(task, partial(_settle, number, count, port, said[number]), SIGKILL) for number in range(count)]


def _watch(ranks: list[Child]) -> int | None:
    """Wait for the end of the first rank; the number of another one that failed before, if one did."""
    first, failed, is_told = ranks[0], None, False
    deadline, orders = float("inf"), [SIGTERM, SIGKILL]
    while first.code is None:
        wait(rank for rank in ranks if rank.code is None)
        if signals.is_pending() and not is_told:
            is_told = True
            first.send(signals.pending())
        if failed is None and not first.code and (failed := _cause(ranks)) is not None:
            deadline = time.monotonic() + _GRACE_S
        if time.monotonic() > deadline and orders:
            first.send(orders.pop(0))
            deadline += _GRACE_S
    if failed is None and first.code == LostRankError.exit_code:
        # It has noticed the loss, and ended, before this process has.
        wait(ranks[1:], _GRACE_S)
        failed = _cause(ranks)
    return failed


def _cause(ranks: list[Child]) -> int | None:
    """The number of a rank other than the first that has failed: one that does not itself wait for a lost one."""
    lost = [number for number, rank in enumerate(ranks) if number and rank.code]
    return min(lost, key=lambda number: (ranks[number].code == LostRankError.exit_code, number), default=None)


def _told(number: int, code: int) -> int:
    if code >= 0:
        return code
    raise KilledError(f"process {number} of the run was {killed_by(code)}", 128 - code)


def _settle(number: int, count: int, port: int, said: Path) -> None:
    topology.become(number, count, port)
    if number > 0:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = said.open("w", buffering=1, encoding="utf-8")
