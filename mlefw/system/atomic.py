"""Atomic writing: a file is filled under a temporary name in its folder, synced to the disk, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mlefw.errors import StorageError
from mlefw.system.file_system import best_effort, remove, replace, sync
from mlefw.system.own_folder import replace_links

Json = dict[str, Any]
"""A JSON object as read from or written to the files of a run."""


def temporary_files(folder: Path) -> list[Path]:
    """Temporary files of atomic writing that killed processes left anywhere below a folder."""
    return [path for path in folder.rglob(".*.tmp") if path.is_file() and not path.is_symlink()]


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, then rename it to `path`.

    Raises:
        StorageError: the file could not be written completely; a file that was at `path` is unchanged.
    """
    temporary = None
    try:
        folder = replace_links(path).parent
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            # `mkstemp` makes files that their owner alone may read.
            with best_effort(path, "change permissions", "files have those that it gives them"):
                Path(temporary).chmod(0o644)
        sync(Path(temporary))
        replace(Path(temporary), path)
        # The new name is in the folder, which is synced by itself.
        sync(path.parent)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            remove(Path(temporary))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file atomically; raises as `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 to a file atomically; raises as `write_atomically`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a file atomically. A figure that is not defined is to be left out beforehand, not written as NaN.

    Raises:
        ValueError: a number is NaN or infinite.
        StorageError: the file could not be written completely.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
