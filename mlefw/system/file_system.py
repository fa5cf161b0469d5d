"""File operations that also work where the file system lacks some of them, as SMB, NFS, FUSE and old formats do."""

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
"""Error numbers by which a file system says that it lacks an operation; a full or broken disk reports others."""

_ZEROS = bytes(2**20)

_warned: set[str] = set()


def is_refused(error: OSError) -> bool:
    """Whether the error says that the file system lacks an operation, rather than that the operation failed."""
    return error.errno in _REFUSED


def warn_once(path: Path, operation: str, consequence: str) -> None:
    """Warn that the file system lacks an operation, the first time that this operation is missed.

    Args:
        path: a file or folder on the file system.
        operation: what it lacks, as the words behind "cannot": "sync what is written".
        consequence: what follows for the user.
    """
    if operation not in _warned:
        _warned.add(operation)
        warn(f"the file system of {path if path.is_dir() else path.parent} cannot {operation}: {consequence}")


@contextmanager
def best_effort(path: Path, operation: str, consequence: str) -> Iterator[None]:
    """Warn, as `warn_once`, instead of failing where the file system lacks an operation of the block.

    Raises:
        OSError: any other failure of the block.
    """
    try:
        yield
    except OSError as error:
        if not is_refused(error):
            raise
        warn_once(path, operation, consequence)


def sync(path: Path) -> None:
    """Write what the system still holds in memory of a file or a folder to the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    with best_effort(path, "sync what is written", "the last of it may be lost where the power fails"):
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" or path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(temporary: Path, path: Path) -> None:
    """Rename a file to `path`, over the file there if there is one; where files cannot be renamed, copy it.

    Renaming leaves a complete file at `path` at every moment; copying does not.

    Raises:
        OSError: the disk is full or broken, or the folder may not be written to.
    """
    try:
        temporary.replace(path)
    except OSError as error:
        if not is_refused(error):
            raise
        warn_once(path, "rename files", "one that is being written where the program is killed is lost")
        shutil.copyfile(temporary, path)
        sync(path)


def remove(path: Path) -> None:
    """Remove a file if it exists; where the file system lacks that, warn."""
    with best_effort(path, "remove files", "some that end with .tmp are left behind"):
        path.unlink(missing_ok=True)


def invalidate(path: Path) -> None:
    """Remove an outdated JSON file; where the file system lacks that, write an empty object into it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if not is_refused(error):
            raise
        path.write_text("{}\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a folder for this process while the block runs; yields False where another process holds the lock.

    The system frees the lock when the process ends, also by a crash. Without locks (Windows, some network file
    systems) every process gets True.
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


def unnamed_file(folder: Path) -> IO[bytes]:
    """An open, empty, unbuffered file without a name in the folder, whose space is freed when it is closed.

    Where files cannot be without a name, it is a hidden one that is removed when the program ends.

    Raises:
        OSError: the file could not be made.
    """
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        if not is_refused(error):
            raise
    descriptor, name = tempfile.mkstemp(prefix=".mlefw.", suffix=".tmp", dir=folder)
    file = os.fdopen(descriptor, "w+b", buffering=0)
    # This file system does not let go of the name of an open file.
    atexit.register(remove, Path(name))
    return file


def reserve(file: IO[bytes], size: int) -> None:
    """Reserve `size` bytes of the disk for a file that will be mapped into memory.

    Without the reservation, writing to a mapped page on a full disk would kill the process (SIGBUS).

    Raises:
        OSError: the disk has no room for them.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, AttributeError) as error:  # macOS and Windows have no posix_fallocate
        if isinstance(error, OSError) and not is_refused(error):
            raise
        left = size
        while left:
            left -= file.write(_ZEROS[:left])
