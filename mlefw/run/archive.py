"""Checkpoint files: tensors and plain containers, written atomically, read without running anything."""

import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from mlefw.callback.stored_state import Content
from mlefw.errors import UsageError
from mlefw.system.atomic import write_atomically

SCHEMA_VERSION = 2

version = cache(metadata.version)
"""Of an installed package: a run names them several times, and each time its metadata would be parsed."""

_MOST_VALUES, _MOST_DEEP = 20_000_000, 64
"""Of a checkpoint: values in all containers, and containers within each other."""

_MARK = b"mlefw sha256 "
_COMMENT = len(_MARK) + 64


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {name: version(name) for name in ("mlefw", "torch", "lightning")}


class Archive(CheckpointIO):
    """How the trainer saves: each checkpoint carries `card`, all that is needed to rebuild the model from raw data."""

    def __init__(self, card: Content) -> None:
        self.card = {"version": SCHEMA_VERSION, "written_by": version("mlefw"), **card}

    def save_checkpoint(self, checkpoint: Content, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint whole, or leave what stood there."""
        write(Path(path), {**checkpoint, "mlefw": self.card})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Content:
        """Read a checkpoint of ours."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def amend(path: Path, **content: Any) -> None:
    """Write a checkpoint file again with more in it."""
    whole = {**read(path), **content}
    write(path, whole)


class _Digesting:
    """A file that torch writes to: it keeps the digest, and an error or a signal that torch would hide."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.error = file, hashlib.sha256(), None

    file: BinaryIO
    error: BaseException | None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
            self.digest.update(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def write(path: Path, content: Content) -> None:
    """Write a checkpoint atomically: a file of `torch.save`, with a digest of it as the comment of the zip archive.

    Raises:
        StorageError: it could not be written whole; what stood at `path` is untouched.
    """

    def fill(file: BinaryIO) -> None:
        target = _Digesting(file)
        try:
            torch.save(content, target)  # type: ignore[arg-type]
        except BaseException:
            if target.error is not None:
                raise target.error from None
            raise
        # The last two bytes of a zip archive are the length of its comment.
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _COMMENT) + _MARK + target.digest.hexdigest().encode())

    write_atomically(path, fill)


def read(path: Path) -> Content:
    """The content of a checkpoint file, on the CPU; nothing in it is ever executed.

    Raises:
        UsageError: no such file, not a checkpoint of mlefw, damaged, of another version, or holding code.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path.absolute()}: expected a run directory or a .ckpt file")
    whole = _is_whole(path)
    if whole is False:
        raise UsageError(f"{path.absolute()} is damaged: its digest is wrong{_others(path)}")
    try:
        _check_members(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UsageError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UsageError(
                f"{path.absolute()} holds code or foreign objects and was refused: nothing was run"
            ) from error
        raise UsageError(f"{path.absolute()} is damaged: its index cannot be read{_others(path)}") from error
    except Exception as error:
        # A damaged or foreign file may make the reader stumble anywhere.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path.absolute()} is damaged or not a checkpoint: {reason}{_others(path)}") from error
    _check_content(path, content)
    if whole is None:
        raise UsageError(
            f"{path.absolute()} lacks the digest at its end: it is damaged, or was saved by another program"
            f"{_others(path)}"
        )
    return content


def _is_whole(path: Path) -> bool | None:
    """Whether the digest that the file carries is the right one; None where it carries none."""
    length = path.stat().st_size - _COMMENT - 2
    with path.open("rb") as file:
        file.seek(max(0, length))
        tail = file.read()
        if length < 0 or not tail[2:].startswith(_MARK):
            return None
        file.seek(0)
        digest = hashlib.sha256()
        while length > 0:
            block = file.read(min(length, 1 << 20))
            length -= len(block)
            digest.update(block)
    digest.update(b"\0\0")
    return tail == struct.pack("<H", _COMMENT) + _MARK + digest.hexdigest().encode()


def _check_members(path: Path) -> None:
    """Refuse members that would grow in memory; torch stores its records as they are."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise UsageError(f"{path.absolute()} was refused: it holds compressed parts, which no checkpoint of mlefw does")


def _check_content(path: Path, content: Any) -> None:
    card = content.get("mlefw") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(content.get("state_dict"), dict):
        raise UsageError(f"{path.absolute()} is not a checkpoint of mlefw: it lacks the description of its model")
    for problem in _problems(content, path.stat().st_size):
        raise UsageError(f"{path.absolute()} is damaged: {problem}")
    made, by = card.get("version"), card.get("written_by", "of an earlier version")
    if not (isinstance(made, int) and isinstance(by, str)):
        raise UsageError(f"{path.absolute()} is damaged: it does not say which version wrote it")
    if made != SCHEMA_VERSION:
        raise UsageError(
            f"{path.absolute()} has checkpoint version {made}, and this mlefw {version('mlefw')} reads "
            f"version {SCHEMA_VERSION}\n"
            f"  mlefw {by} wrote it and reads it; or train anew"
        )


def _problems(content: Content, limit: int) -> Iterator[str]:
    """What no checkpoint of mlefw holds, the first thing first; `limit` is the size of its file in bytes.

    Whatever has been written takes a byte of the file at least, so that containers which are there many times over, or
    within themselves, are found in bounded time; what is read afterwards may go through all of them.
    """
    left, open_nodes = min(limit, _MOST_VALUES), [("", content, 0)]
    while open_nodes:
        name, node, depth = open_nodes.pop()
        left -= 1
        if left < 0 or depth > _MOST_DEEP:
            yield f"{name or 'its content'} is far larger than the file, or within itself"
            return
        if isinstance(node, torch.Tensor):
            if node.layout != torch.strided or node.is_quantized or node.device.type != "cpu":
                yield f"tensor {name} is not a plain one"
            elif node.numel() * node.element_size() > limit:
                yield f"tensor {name} claims to be larger than the file"
        elif isinstance(node, dict):
            # At the end of the list is what comes next.
            open_nodes += [(f"{name}.{key}".strip("."), part, depth + 1) for key, part in reversed(node.items())]
        elif isinstance(node, list | tuple):
            open_nodes += [(name, part, depth + 1) for part in reversed(node)]


def _others(path: Path) -> str:
    """A hint at the newest other checkpoint beside it."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and other.is_file() and _is_whole(other)]
    newest = max(others, key=lambda other: other.stat().st_mtime, default=None)
    return f"; the newest whole one beside it is {newest.absolute()}" if newest is not None else ""
