"""Whole copies of remote files in a folder of this machine, for runs to come."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mlefw.errors import UsageError
from mlefw.reading.remote.content import PIECE_BYTES, Content
from mlefw.system.atomic import write_atomically, write_json
from mlefw.system.file_system import locked
from mlefw.system.local_path import local_path

_WAIT_S = 0.1
"""Seconds until a process that waits for another one's copy looks again."""


def copy_of(content: Content, folder: str) -> Path:
    """The path of a copy of a content, which is made unless there is one of the same version that is not damaged.

    A copy has a name of its address, size and tag; beside it lies a JSON file with the SHA-256 of its bytes. Where the
    server tells no versions apart, the file is fetched each time.

    Args:
        content: what is copied.
        folder: the directory, setting `data.download`.

    Raises:
        StorageError: the copy could not be written, or the content not be read.
        UsageError: there is no such directory, or the content has changed meanwhile.
    """
    place = local_path(folder, "data.download").expanduser().absolute()
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"data.download={place}: expected a directory that can be written to")
    size, tag = content.version
    described = {"address": content.address, "size": size, "tag": tag}
    path = place / hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
    with _alone(place):
        if not (tag and _is_whole(path)):
            write_json(path.with_suffix(".json"), {**described, "sha256": _fetch(content, path)})
    return path


def _fetch(content: Content, path: Path) -> str:
    """Write a content to a file; the SHA-256 of its bytes."""
    digest, size = hashlib.sha256(), content.version.size

    def write(file: BinaryIO) -> None:
        for start in range(0, size, PIECE_BYTES):
            piece = content.fetch(start, min(start + PIECE_BYTES, size))
            digest.update(piece)
            file.write(piece)
        content.check()

    write_atomically(path, write)
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes copies in a folder: those that a run or a sweep starts share one."""
    while True:
        with locked(folder) as is_held:
            if is_held:
                yield
                return
        time.sleep(_WAIT_S)


def _is_whole(path: Path) -> bool:
    """Whether there is a copy whose bytes are those that were written."""
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == known
    except (OSError, ValueError, KeyError, TypeError):
        return False
