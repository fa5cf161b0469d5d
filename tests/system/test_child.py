"""A forked process: how it ends, what it hears of, and that nothing of it is left."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mlefw.errors import Stopped
from mlefw.system.child import Child, killed_by, wait


def ended(child: Child) -> int:
    """Its exit code."""
    child.join()
    assert child.code is not None
    return child.code


def child(task, settle=lambda: None) -> Child:
    return Child(task, settle, signal.SIGKILL)


def stop() -> int:
    raise Stopped("SIGTERM", 143)


@pytest.mark.parametrize(
    ("task", "code"), [(lambda: 0, 0), (lambda: 5, 5), (stop, 143), (lambda: os.kill(os.getpid(), 9), -9)]
)
def test_the_code_tells_how_it_ended(task, code) -> None:
    assert ended(child(task)) == code


def test_it_is_settled_first_and_has_a_session_of_its_own() -> None:
    near, far = os.pipe()
    one = child(lambda: os.write(far, f"{os.getsid(0)}".encode()) * 0, lambda: os.write(far, b"first "))
    assert ended(one) == 0
    assert os.read(near, 99).decode() == f"first {one.process.pid}"
    os.close(near), os.close(far)


def test_a_signal_reaches_it_and_none_reaches_what_has_ended() -> None:
    one = child(lambda: time.sleep(600) or 0)
    assert one.code is None
    one.send(signal.SIGKILL)
    assert ended(one) == -signal.SIGKILL
    one.send(signal.SIGTERM)
    one.kill()
    assert one.code == -signal.SIGKILL


def test_waiting_ends_with_the_first_of_several() -> None:
    quick, slow = child(lambda: 0), child(lambda: time.sleep(600) or 0)
    try:
        wait([quick, slow], 60.0)
        assert quick.seconds < 60
        assert ended(quick) == 0
        assert slow.code is None
        begun = time.monotonic()
        wait([slow], 0.1)
        assert time.monotonic() - begun >= 0.1
    finally:
        slow.kill()
        slow.join()


def test_what_it_has_started_ends_with_it() -> None:
    near, far = os.pipe()

    def start() -> int:
        other = subprocess.Popen(["sleep", "600"])
        os.write(far, str(other.pid).encode())
        return 0

    one = child(start)
    assert ended(one) == 0
    pid = int(os.read(near, 99))
    os.kill(pid, 0)
    one.kill()
    os.close(near), os.close(far)
    for _ in range(200):
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("a process of the child is left")


def alive(pid: int) -> bool:
    """Whether it runs: what has ended may still be listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_end_is_told_by_the_name_of_the_signal() -> None:
    assert killed_by(-signal.SIGKILL) == "killed by SIGKILL (by hand, or out of memory)"
    assert killed_by(-signal.SIGSEGV) == "killed by SIGSEGV"
