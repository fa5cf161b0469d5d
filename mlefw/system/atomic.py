"""Files that are whole or absent: written beside their target, synced, then renamed over it."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlefw.errors import StorageError
from mlefw.system.file_system import best_effort, put, remove, sync
from mlefw.system.own_folder import cleared

Json = dict[str, Any]
"""A JSON object, as the files of a run hold it: figures, text, and objects by name."""

_AT_ONCE = 16


class _File(NamedTuple):
    temporary: Path
    path: Path


@dataclass
class _Together:
    files: list[_File] | None = None


_together = _Together()


def leftovers(folder: Path) -> list[Path]:
    """The temporary files below a folder that a killed process left behind."""
    return [path for path in folder.rglob(".*.tmp") if path.is_file() and not path.is_symlink()]


@contextmanager
def together() -> Iterator[None]:
    """Let the files written in the block take their places when it ends, in their order, and all be synced at once.

    A disk brings many files to rest in little more than the time of one. Until the end none of them is in its place.

    Raises:
        StorageError: they could not be brought to disk.
    """
    if _together.files is not None:
        yield
        return
    _together.files = []
    try:
        yield
    finally:
        files, _together.files = _together.files, None
        _place(files)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, then put it in the place of `path`.

    Raises:
        StorageError: the file could not be written whole; what stood at `path` is untouched.
    """
    temporary = None
    try:
        folder = cleared(path).parent
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            with best_effort(path, "change permissions", "files have those that it gives them"):
                Path(temporary).chmod(0o644)
        written, temporary = _File(Path(temporary), path), None
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            remove(Path(temporary))
    if _together.files is None:
        _place([written])
    else:
        _together.files.append(written)


def _place(files: Sequence[_File]) -> None:
    """Sync files, put them in their places, and sync their folders."""
    try:
        _sync([file.temporary for file in files])
        for file in files:
            put(file.temporary, file.path)
        _sync(list(dict.fromkeys(file.path.parent for file in files)))
    except OSError as error:
        where = files[0].path if len(files) == 1 else error.filename
        raise StorageError(f"{where} could not be written: {error.strerror or error}") from error
    finally:
        for file in files:
            remove(file.temporary)


def _sync(paths: Sequence[Path]) -> None:
    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(sync, paths))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since a figure that is not defined is left out.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
