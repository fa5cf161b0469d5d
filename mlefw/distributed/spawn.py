"""The processes of a run on one machine: forked, watched, and ended together."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGTERM, Signals

from mlefw.distributed import topology
from mlefw.errors import KilledError, LostRankError, UsageError
from mlefw.system import signals
from mlefw.system.inert_text import shown

SIGKILL = getattr(signal, "SIGKILL", SIGTERM)
_TICK_S = 0.2
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
        processes = _start(task, said)
        try:
            failed = _watch(processes)
        finally:
            for process in processes:
                _send(process, SIGKILL)
                process.join()
        first = processes[0].exitcode or 0
        if failed is None or first not in (LostRankError.exit_code, 128 + SIGTERM, -SIGTERM, -SIGKILL):
            return _told(0, first)
        sys.stderr.write(shown(said[failed].read_text(encoding="utf-8", errors="replace")))
        return _told(failed, processes[failed].exitcode or LostRankError.exit_code)


def _start(task: Callable[[], int], said: list[Path]) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    for number in range(len(said)):
        arguments = (task, number, len(said), port, said[number], os.getpid())
        processes.append(context.Process(target=_child, args=arguments))
        processes[-1].start()
    return processes


def _watch(processes: list[BaseProcess]) -> int | None:
    """Wait for the end of the first process; the number of another one that failed before, if one did."""
    first, failed, is_told = processes[0], None, False
    deadline, orders = float("inf"), [SIGTERM, SIGKILL]
    while first.exitcode is None:
        connection.wait([one.sentinel for one in processes if one.exitcode is None], _TICK_S)
        if signals.is_pending() and not is_told:
            is_told = True
            _send(first, signals.pending())
        if failed is None and not first.exitcode and (failed := _cause(processes)) is not None:
            deadline = time.monotonic() + _GRACE_S
        if time.monotonic() > deadline and orders:
            _send(first, orders.pop(0))
            deadline += _GRACE_S
    if failed is None and first.exitcode == LostRankError.exit_code:
        # It has noticed the loss, and ended, before this process has.
        connection.wait([one.sentinel for one in processes[1:]], _GRACE_S)
        failed = _cause(processes)
    return failed


def _cause(processes: list[BaseProcess]) -> int | None:
    """The number of a process other than the first that has failed: one that does not itself wait for a lost one."""
    lost = [number for number, one in enumerate(processes) if number and one.exitcode]
    return min(lost, key=lambda number: (processes[number].exitcode == LostRankError.exit_code, number), default=None)


def _told(number: int, code: int) -> int:
    if code >= 0:
        return code
    name = Signals(-code).name
    why = " (by hand, or out of memory)" if -code == SIGKILL else ""
    raise KilledError(f"process {number} of the run was killed by {name}{why}", 128 - code)


def _send(process: BaseProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        if process.exitcode is None:
            os.kill(process.pid or 0, number)


def _child(task: Callable[[], int], number: int, count: int, port: int, said: Path, parent: int) -> None:
    # Of its own session: a terminal's signal reaches the parent alone, which passes it on.
    os.setsid()
    signals.forked()
    signals.end_with(parent, SIGKILL)
    topology.become(number, count, port)
    if number > 0:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = said.open("w", buffering=1, encoding="utf-8")
    sys.exit(task())
