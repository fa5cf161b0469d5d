"""What a file system may refuse: shares (SMB, NFS), FUSE and old formats lack some operations of a local disk."""

import atexit
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mlefw.system.warning import warn

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

_NAMES = (
    *("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EPERM", "EACCES", "ENOLCK", "ENODEV", "ENOTTY", "EBADF"),
    *("EXDEV", "EBUSY", "ETXTBSY"),
)
_REFUSED = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}
"""Errors that say that an operation is not to be had; a full or broken disk has others."""

_ZEROS = bytes(2**20)

_told: set[str] = set()


def is_refused(error: OSError) -> bool:
    """Whether an operation is not to be had here, rather than has failed."""
    return error.errno in _REFUSED


def tell(path: Path, lacks: str, so: str) -> None:
    """Say once what a file system lacks, and what follows from it."""
    if lacks not in _told:
        _told.add(lacks)
        warn(f"the file system of {path if path.is_dir() else path.parent} cannot {lacks}: {so}")


@contextmanager
def best_effort(path: Path, lacks: str, so: str) -> Iterator[None]:
    """Go on where the file system refuses what is done in the block; any other failure is raised."""
    try:
        yield
    except OSError as error:
        if not is_refused(error):
            raise
        tell(path, lacks, so)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    with best_effort(path, "sync what is written", "the last of it may be lost where the power fails"):
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" or path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put(temporary: Path, path: Path) -> None:
    """Let a file take the place of another one; of the two there is always a whole one where files can be renamed.

    Raises:
        OSError: the disk is full or broken, or the folder may not be written to.
    """
    try:
        temporary.replace(path)
    except OSError as error:
        if not is_refused(error):
            raise
        tell(path, "rename files", "one that is being written where the program is killed is lost")
        shutil.copyfile(temporary, path)
        sync(path)


def remove(path: Path) -> None:
    """Remove a file that nobody needs, if there is one and it can be removed."""
    with best_effort(path, "remove files", "some that end with .tmp are left behind"):
        path.unlink(missing_ok=True)


def void(path: Path) -> None:
    """Remove a JSON file that no longer holds; where it cannot be removed, nothing is left in it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if not is_refused(error):
            raise
        path.write_text("{}\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a folder for this process; whether it is held. The system lets go of it when the process ends, however.

    Where there are no locks it counts as held.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        is_held = True
        try:
            with best_effort(path, "lock folders", "no other run or sweep may be started in this one"):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)


def nameless(folder: Path) -> IO[bytes]:
    """A file without a buffer that nobody sees, and that ends with its user: as a rule it has no name.

    Raises:
        OSError: there is no room for it.
    """
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        if not is_refused(error):
            raise
    descriptor, name = tempfile.mkstemp(prefix=".mlefw.", suffix=".tmp", dir=folder)
    file = os.fdopen(descriptor, "w+b", buffering=0)
    # An open file keeps its name here; it is removed when the program ends.
    atexit.register(remove, Path(name))
    return file


def reserve(file: IO[bytes], size: int) -> None:
    """Take room for so many bytes at once: a mapped page without room would end the process when it is written.

    Raises:
        OSError: there is none.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and not is_refused(error):
            raise
        left = size
        while left:
            left -= file.write(_ZEROS[:left])
