"""Checkpoint files: tensors and plain containers, written atomically, read without running anything."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from mlefw.atomic import write_atomically
from mlefw.errors import UsageError

SCHEMA_VERSION = 1


class Archive(CheckpointIO):
    """How the trainer saves: each checkpoint carries `card`, all that is needed to rebuild the model from raw data."""

    def __init__(self, card: dict[str, Any]) -> None:
        self.card = {"version": SCHEMA_VERSION, **card}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint whole, or leave what stood there."""
        content = {**checkpoint, "mlefw": self.card}
        write_atomically(Path(path), lambda file: torch.save(content, file))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of ours."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU; nothing in it is ever executed.

    Raises:
        UsageError: no such file, not a checkpoint of mlefw, damaged, or holding code.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path.absolute()}: expected a run directory or a .ckpt file")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path.absolute()} is damaged or not a checkpoint{_others(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise UsageError(f"{path.absolute()} is damaged: the checksum of {broken} is wrong{_others(path)}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path.absolute()} holds code or foreign objects and was refused: nothing was run") from error
    except (RuntimeError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UsageError(f"{path.absolute()} is damaged: {str(error).splitlines()[0]}{_others(path)}") from error
    card = content.get("mlefw") if isinstance(content, dict) else None
    if not isinstance(card, dict) or "state_dict" not in content:
        raise UsageError(f"{path.absolute()} is not a checkpoint of mlefw: it lacks the description of its model")
    if card.get("version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path.absolute()} has checkpoint version {card.get('version')}, this mlefw reads {SCHEMA_VERSION}"
        )
    return content


def extend(path: Path, more: dict[str, Any]) -> None:
    """Add to what a checkpoint carries beside its tensors; the file is replaced whole, or stays as it was."""
    content = read(path)
    content["mlefw"] = {**content["mlefw"], **more}
    write_atomically(path, lambda file: torch.save(content, file))


def _others(path: Path) -> str:
    """A hint at the newest other checkpoint beside it."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and zipfile.is_zipfile(other)]
    newest = max(others, key=lambda other: other.stat().st_mtime, default=None)
    return f"; the newest whole one beside it is {newest.absolute()}" if newest is not None else ""
