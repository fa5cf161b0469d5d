"""Which processes take part in a search, and whether they are still alive, on this machine or another one."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlefw.system import file_system

FOLDER = "workers"

_BEAT_S = 5.0
"""Seconds between two signs of life."""

_DEAD_AFTER_S = 60.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""


class Presence:
    """The sign of life of this process: a file that it keeps locked, and touches every few seconds.

    The lock tells processes on the same machine at once that it is dead. Forks of this process hold the lock, too: as
    long as one of them still trains, its trial is not taken over.

    Args:
        root: the directory of the search.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / FOLDER
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.beaten = 0.0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the sign of life while the block runs."""
        path = self.root / self.name
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch()
        try:
            with file_system.locked(path):
                yield
        finally:
            file_system.remove(path)

    def beat(self) -> None:
        """Touch the file, if that was not done in the last seconds."""
        if time.monotonic() - self.beaten >= _BEAT_S:
            os.utime(self.root / self.name)
            self.beaten = time.monotonic()

    def is_alive(self, name: str) -> bool:
        """Whether the process with this name is alive; to be asked while the sign of life of this one is kept."""
        if name == self.name:
            return True
        path = self.root / name
        # The clock of the file system, which may differ from that of this machine, is the same for both.
        now = (self.root / self.name).stat().st_mtime
        try:
            age = now - path.stat().st_mtime
            if not name.startswith(f"{socket.gethostname()}-"):
                return age < _DEAD_AFTER_S
            with file_system.locked(path) as is_free:
                return not is_free
        except FileNotFoundError:
            return False
