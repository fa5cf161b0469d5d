"""Where a run is written: a directory claimed by exactly one process."""

import os
from datetime import datetime
from pathlib import Path

from mlefw.errors import UsageError

SUPERSEDED = "superseded"
"""The folder of a sweep that keeps failed attempts which were repeated."""


def default_path(kind: str = "outputs") -> Path:
    """`<kind>/<date>/<time>-<process>`: two runs never choose the same."""
    now = datetime.now().astimezone()
    return Path(kind) / now.strftime("%Y-%m-%d") / f"{now.strftime('%H-%M-%S-%f')}-{os.getpid()}"


def check_free(path: Path) -> None:
    """Refuse a directory that cannot be claimed, while nothing is written yet.

    Raises:
        UsageError: it holds something, is a link or a file, or cannot be written to.
    """
    if path.is_symlink():
        raise UsageError(f"run_dir={path}: is a link; expected a new or empty directory")
    if path.exists() and not path.is_dir():
        raise UsageError(f"run_dir={path}: is a file; expected a new or empty directory")
    if path.is_dir() and any(path.iterdir()):
        what = "already holds a run" if (path / "checkpoints").exists() else "is not empty"
        raise UsageError(f"run_dir={path} {what}: expected a new or empty directory")
    above = path.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"run_dir={path}: {above} cannot be written to")


def claim(path: Path) -> Path:
    """Make the directory, and in it `checkpoints`, whose making decides between two processes; the absolute path.

    Raises:
        UsageError: another run has it, or it cannot be made.
    """
    check_free(path)
    try:
        _make(path)
        (path / "checkpoints").mkdir(mode=0o755)
    except FileExistsError as error:
        raise UsageError(f"run_dir={path} was taken by another run: expected a new or empty directory") from error
    except OSError as error:
        raise UsageError(f"run_dir={path} cannot be made: {error.strerror}") from error
    return path.absolute()


def _make(path: Path) -> None:
    if not path.exists():
        _make(path.parent)
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            if not path.is_dir():
                raise


def checkpoint_of(run: str | Path, name: str = "best.ckpt") -> Path:
    """The checkpoint file meant by a run directory or by a file itself.

    Raises:
        UsageError: neither is there.
    """
    path = Path(run)
    if "://" in str(run):
        raise UsageError(f"run={run}: only local files are read")
    if not path.exists():
        raise UsageError(f"run={path}: there is no such file or directory ({path.absolute()})")
    if path.is_dir():
        file = path / "checkpoints" / name
        if not file.is_file():
            raise UsageError(f"run={path}: the directory holds no checkpoints/{name}")
        return file
    return path
