"""Files that are whole or absent: written beside their target, synced, then renamed over it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mlefw.errors import StorageError
from mlefw.system.file_system import best_effort, put, remove, sync
from mlefw.system.own_folder import cleared

Json = dict[str, Any]
"""A JSON object, as the files of a run hold it: figures, text, and objects by name."""


def leftovers(folder: Path) -> list[Path]:
    """The temporary files below a folder that a killed process left behind."""
    return [path for path in folder.rglob(".*.tmp") if path.is_file() and not path.is_symlink()]


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
        sync(Path(temporary))
        put(Path(temporary), path)
        sync(path.parent)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            remove(Path(temporary))


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
