"""Whole copies of remote files in a folder of this machine, for runs to come."""

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO

from mlefw.errors import UsageError
from mlefw.reading.remote.content import PIECE_BYTES, Content
from mlefw.system.atomic import write_atomically, write_json
from mlefw.system.local_path import local_path


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
    if not (tag and _is_whole(path)):
        digest = hashlib.sha256()

        def fetch(file: BinaryIO) -> None:
            for start in range(0, size, PIECE_BYTES):
                piece = content.fetch(start, min(start + PIECE_BYTES, size))
                digest.update(piece)
                file.write(piece)
            content.check()

        write_atomically(path, fetch)
        write_json(path.with_suffix(".json"), {**described, "sha256": digest.hexdigest()})
    return path


def _is_whole(path: Path) -> bool:
    """Whether there is a copy whose bytes are those that were written."""
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == known
    except (OSError, ValueError, KeyError, TypeError):
        return False
