"""Checkpoint files: tensors and plain containers, written atomically, read without executing any code."""

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
"""Version of the layout of a checkpoint; another one is refused."""

version = cache(metadata.version)
"""The version of an installed package; cached, since its metadata would be parsed at each call."""

_MAX_VALUES, _MAX_DEPTH = 20_000_000, 64
"""Limits of a checkpoint: number of values in all containers, and depth of nested containers."""

_DIGEST_PREFIX = b"mlefw sha256 "
_COMMENT_BYTES = len(_DIGEST_PREFIX) + 64
"""Length of the comment of the zip archive: the prefix and 64 hexadecimal digits."""


def versions() -> dict[str, str]:
    """The versions of the packages that a run is made with."""
    return {name: version(name) for name in ("mlefw", "torch", "lightning")}


class Archive(CheckpointIO):
    """Saves and loads the checkpoints of Lightning's trainer.

    Args:
        card: added to each checkpoint: all that is needed to build the model again (see `run.checkpoint.card`).
        own: the folder of the run's own checkpoints, which was made with the run: where it is gone, so is the run.
            Other folders, of callbacks of Lightning, are made; without `own` none are.
    """

    def __init__(self, card: Content, own: Path | None = None) -> None:
        self.own = own
        self.card = {"version": SCHEMA_VERSION, "written_by": version("mlefw"), **card}

    def save_checkpoint(self, checkpoint: Content, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically: if that fails, an earlier file at `path` is untouched."""
        if self.own is not None and Path(path).parent != self.own:
            Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(Path(path), {**checkpoint, "mlefw": self.card})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Content:
        """Read a checkpoint onto the CPU; errors as in `read`."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def amend(path: Path, **content: Any) -> None:
    """Add entries to a checkpoint file, which is written anew as a whole."""
    write(path, {**read(path), **content})


class _Digesting:
    """A file for `torch.save` that computes the digest, and keeps an error or a signal, which torch would hide."""

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
    """Write a checkpoint atomically: a file of `torch.save`, with its digest as the comment of the zip archive.

    Raises:
        StorageError: it could not be written; an earlier file at `path` is untouched.
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
        file.write(struct.pack("<H", _COMMENT_BYTES) + _DIGEST_PREFIX + target.digest.hexdigest().encode())

    write_atomically(path, fill)


def read(path: Path) -> Content:
    """The content of a checkpoint file, on the CPU; no code in it is executed.

    Raises:
        UsageError: there is no such file, or it is no checkpoint of mlefw, damaged, of another version, or holds code.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path.absolute()}: expected a run directory or a .ckpt file")
    is_valid = _has_valid_digest(path)
    if is_valid is False:
        raise UsageError(f"{path.absolute()} is damaged: its digest is wrong{_newest_other(path)}")
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
        raise UsageError(f"{path.absolute()} is damaged: its index cannot be read{_newest_other(path)}") from error
    except Exception as error:
        # torch raises errors of any kind on a damaged or foreign file.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path.absolute()} is damaged or not a checkpoint: {reason}{_newest_other(path)}") from error
    _check_content(path, content)
    if is_valid is None:
        raise UsageError(
            f"{path.absolute()} lacks the digest at its end: it is damaged, or was saved by another program"
            f"{_newest_other(path)}"
        )
    return content


def _has_valid_digest(path: Path) -> bool | None:
    """Whether the digest at the end of the file is that of its content; None if there is no digest."""
    length = path.stat().st_size - _COMMENT_BYTES - 2
    with path.open("rb") as file:
        file.seek(max(0, length))
        tail = file.read()
        if length < 0 or not tail[2:].startswith(_DIGEST_PREFIX):
            return None
        file.seek(0)
        digest = hashlib.sha256()
        while length > 0:
            block = file.read(min(length, 1 << 20))
            length -= len(block)
            digest.update(block)
    # The digest was taken before the comment: the two bytes for the comment's length were zero then.
    digest.update(b"\0\0")
    return tail == struct.pack("<H", _COMMENT_BYTES) + _DIGEST_PREFIX + digest.hexdigest().encode()


def _check_members(path: Path) -> None:
    """Refuse compressed members, which may grow without bounds in memory; `torch.save` does not compress."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise UsageError(f"{path.absolute()} was refused: it holds compressed parts, which no checkpoint of mlefw does")


def _check_content(path: Path, content: Any) -> None:
    """Hold a content to the layout of a checkpoint of mlefw of this version."""
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
    """What no checkpoint of mlefw holds, in the order of the content; `limit` is the size of the file in bytes.

    Each value takes at least a byte of the file. So a content with more values than that holds a container many times,
    or within itself, and later walks over it might never end.
    """
    left, open_nodes = min(limit, _MAX_VALUES), [("", content, 0)]
    while open_nodes:
        name, node, depth = open_nodes.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            yield f"{name or 'its content'} is far larger than the file, or within itself"
            return
        if isinstance(node, torch.Tensor):
            if node.layout != torch.strided or node.is_quantized or node.device.type != "cpu":
                yield f"tensor {name} is not a plain one"
            elif node.numel() * node.element_size() > limit:
                yield f"tensor {name} claims to be larger than the file"
        elif isinstance(node, dict):
            # Reversed, since the next one is taken from the end.
            open_nodes += [(f"{name}.{key}".strip("."), part, depth + 1) for key, part in reversed(node.items())]
        elif isinstance(node, list | tuple):
            open_nodes += [(name, part, depth + 1) for part in reversed(node)]


def _newest_other(path: Path) -> str:
    """A hint for the user at the newest valid checkpoint in the same folder; empty if there is none."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and other.is_file()]
    valid = [other for other in others if _has_valid_digest(other)]
    newest = max(valid, key=lambda other: other.stat().st_mtime, default=None)
    return f"; the newest whole one beside it is {newest.absolute()}" if newest is not None else ""
