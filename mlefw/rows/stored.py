"""Rows larger than memory: their arrays are memory-mapped files."""

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

_RELEASE_BYTES = 2**26
"""Bytes that a pass over the rows reads before it releases the memory pages read so far."""


_GATHERED = 256
"""Rows that are copied out of the files before the memory pages read for them are released."""


class Store:
    """Makes arrays that are memory-mapped files without a name.

    The space of a file is freed when nothing refers to its array any more, and when the process ends.

    Args:
        folder: the directory of the files, setting `data.cache`; None for the system's temporary directory.

    Raises:
        UsageError: the folder does not exist, or cannot be written to.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = local_path(folder or tempfile.gettempdir(), "data.cache").absolute()
        if not self.folder.is_dir() or not os.access(self.folder, os.W_OK | os.X_OK):
            raise UsageError(f"data.cache={self.folder}: expected a directory that can be written to")
        self.maps: WeakSet[mmap.mmap] = WeakSet()
        _allow_many_files()

    def array(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """An array of zeros in a file.

        Raises:
            StorageError: the disk has no room for it.
        """
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with self._storage_errors(), file_system.unnamed_file(self.folder) as file:
            file_system.reserve(file, size)
            return self._mapped(file, size, dtype, shape)

    def keep(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """A column, (n,), put together from consecutive pieces: in a file where they are float64, else in memory.

        Raises:
            StorageError: the disk has no room for it.
        """
        pieces, size = iter(pieces), 0
        first = next(pieces)
        if first.dtype != np.float64:
            return np.concatenate([first, *pieces])
        with self._storage_errors():
            # Unbuffered: a buffer would be flushed again, and fail again, when the file on a full disk is closed.
            file = file_system.unnamed_file(self.folder)
        with file:
            for piece in chain([first], pieces):
                left = np.ascontiguousarray(piece).view(np.uint8).data
                size += len(left)
                while left:
                    with self._storage_errors():
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
    def _storage_errors(self) -> Iterator[None]:
        """Turn an `OSError` of the block into a `StorageError` that names the settings to change."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the rows found no room in {self.folder} ({error.strerror or error})"
                "\n  data.cache=DIR puts them elsewhere, data.stream=false into memory"
            ) from None

    def release(self) -> None:
        """Release the memory pages of all arrays; they are read from the files again when needed."""
        for one in self.maps if hasattr(mmap.mmap, "madvise") else ():
            # The call only makes memory free earlier: the system reclaims the pages by itself when it needs them.
            with suppress(OSError):
                one.madvise(mmap.MADV_DONTNEED)


class StoredRows(Rows):
    """Rows whose columns are in a `Store`. Iterating over `blocks` holds only some of the blocks in memory."""

    store: Store | None = None

    def take(self, index: Tensor | slice) -> Rows:
        """The rows at `index`, in its order; for a slice they stay in the store, else they are copied into memory."""
        if isinstance(index, Tensor) and index.ndim == 1 and len(index) > _GATHERED:
            # Rows that lie far apart read the pages around each of them.
            parts = [self._released(part) for part in index.split(_GATHERED)]
            return Rows(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        rows = super().take(index)
        return self._replace(**rows._asdict()) if isinstance(index, slice) else rows

    def _released(self, index: Tensor) -> Rows:
        rows = super().take(index)
        self.release()
        return rows

    def blocks(self, size: int) -> Iterator[Rows]:
        """The rows in consecutive blocks of at most `size` rows, whose memory pages are released on the way."""
        num_bytes = 0
        for part in super().blocks(size):
            yield part
            # By the stride: reading every tenth row, say, reads the pages of all rows.
            num_bytes += sum(len(column) * column.stride(0) * column.element_size() for column in part)
            if num_bytes > _RELEASE_BYTES:
                self.release()
                num_bytes = 0
        self.release()

    def release(self) -> None:
        """Release the memory pages of the store."""
        if self.store is not None:
            self.store.release()

    def new_empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """A tensor of zeros, (num_rows, *shape), in the store.

        Raises:
            StorageError: the disk has no room for it.
        """
        if self.store is None:
            return super().new_empty(shape, dtype)
        return torch.from_numpy(self.store.array((self.num_rows, *shape), torch.empty(0, dtype=dtype).numpy().dtype))

    def _replace(self, **columns: Tensor) -> "StoredRows":
        rows = super()._replace(**columns)
        rows.store = self.store
        return rows


def _allow_many_files() -> None:
    """Raise the limit on open files to its maximum: each array holds one open, and a table may have thousands."""
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_limit() -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its control group where that is less.

    Memory that is free at the moment would be no answer: a resumed run, and all processes of a run, have to decide
    alike whether rows are kept in files.
    """
    known = [sys.maxsize]
    # Windows has no `sysconf`: there the user has to set data.stream=true.
    with suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            known.append(int(Path(limit).read_text(encoding="ascii")))
    return min(known)
