"""Rows beyond memory: arrays in files, of which memory holds what is being read."""

import mmap
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from mlefw.errors import StorageError, UsageError
from mlefw.rows.rows import Rows
from mlefw.system import file_system
from mlefw.system.local_path import local_path

resource: Any
try:
    import resource
except ImportError:
    resource = None

_RESIDENT = 2**26
"""Bytes of a pass after which the pages that it has read are let go."""


class Store:
    """Arrays of fixed shape in files that nobody sees: each is unlinked as soon as it is open, and ends with its user.

    The file of an array is gone as soon as nothing refers to the array.

    Args:
        folder: where there is room; None for the system's temporary directory.

    Raises:
        UsageError: the folder is none, or cannot be written to.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = local_path(folder or tempfile.gettempdir(), "data.cache").absolute()
        if not self.folder.is_dir() or not os.access(self.folder, os.W_OK | os.X_OK):
            raise UsageError(f"data.cache={self.folder}: expected a directory that can be written to")
        self.maps: WeakSet[mmap.mmap] = WeakSet()
        _allow_many_files()

    def array(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """An array of zeros.

        Raises:
            StorageError: there is no room for it.
        """
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with self._telling(), file_system.unnamed_file(self.folder) as file:
            file_system.reserve(file, size)
            return self._mapped(file, size, dtype, shape)

    def keep(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """A column of numbers that comes in pieces, in a file as one array; other columns stay in memory.

        Raises:
            StorageError: there is no room for it.
        """
        pieces, size = iter(pieces), 0
        first = next(pieces)
        if first.dtype != np.float64:
            return np.concatenate([first, *pieces])
        with self._telling():
            # Without a buffer, which would be written once more as the file of a full disk is closed.
            file = file_system.unnamed_file(self.folder)
        with file:
            for piece in chain([first], pieces):
                left = np.ascontiguousarray(piece).view(np.uint8).data
                size += len(left)
                while left:
                    with self._telling():
                        left = left[file.write(left) :]
            self.release()
            return self._mapped(file, size, np.float64, (size // first.itemsize,)) if size else first

    def _mapped(self, file: IO[bytes], size: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        try:
            content = mmap.mmap(file.fileno(), size)
        except OSError as error:
            if not file_system.is_refused(error):
                raise
            file_system.warn_once(
                self.folder, "map files", "rows are held in memory (data.cache=DIR puts them elsewhere)"
            )
            file.seek(0)
            return np.fromfile(file, dtype).reshape(shape)
        self.maps.add(content)
        return np.frombuffer(content, dtype, int(np.prod(shape))).reshape(shape)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say where the rows may go instead."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the rows found no room in {self.folder} ({error.strerror or error})"
                "\n  data.cache=DIR puts them elsewhere, data.stream=false into memory"
            ) from None

    def release(self) -> None:
        """Let the pages go that were read: what they hold is in the files, and comes back when it is asked for."""
        for one in self.maps if hasattr(mmap.mmap, "madvise") else ():
            # Advice: where it is not taken, the system takes the pages when it needs them.
            with suppress(OSError):
                one.madvise(mmap.MADV_DONTNEED)


class StoredRows(Rows):
    """Rows whose columns are in a store. A pass over them by `blocks` takes memory for some blocks alone."""

    store: Store | None = None

    def take(self, index: Tensor | slice) -> Rows:
        """The rows at `index`, in that order; those of a slice stay in the store."""
        rows = super().take(index)
        return self._replace(**rows._asdict()) if isinstance(index, slice) else rows

    def blocks(self, size: int) -> Iterator[Rows]:
        """Consecutive blocks of at most `size` rows."""
        num_bytes = 0
        for part in super().blocks(size):
            yield part
            # Of every tenth row, say, all pages are read.
            num_bytes += sum(len(column) * column.stride(0) * column.element_size() for column in part)
            if num_bytes > _RESIDENT:
                self.release()
                num_bytes = 0
        self.release()

    def release(self) -> None:
        """Let the pages go that were read."""
        if self.store is not None:
            self.store.release()

    def room(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """An array in the store.

        Raises:
            StorageError: there is no room for it.
        """
        if self.store is None:
            return super().room(shape, dtype)
        return torch.from_numpy(self.store.array((self.num_rows, *shape), torch.empty(0, dtype=dtype).numpy().dtype))

    def _replace(self, **columns: Tensor) -> "StoredRows":
        rows = super()._replace(**columns)
        rows.store = self.store
        return rows


def _allow_many_files() -> None:
    """Each array holds a file open, and a table may have thousands of columns."""
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def capacity() -> int:
    """Bytes of memory that there are for this process: those of the machine, or what its control group may take.

    What is free at the moment does not count: a run that is resumed, and all processes of one, are to decide alike.
    """
    known = [sys.maxsize]
    # Windows does not say: there data.stream=true asks for files.
    with suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            known.append(int(Path(limit).read_text(encoding="ascii")))
    return min(known)
