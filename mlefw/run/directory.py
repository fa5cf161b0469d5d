"""Where a run is written: a directory claimed by exactly one process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from mlefw.errors import UsageError
from mlefw.system import file_system
from mlefw.system.atomic import Json
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own

CANDIDATES = "candidates"
"""The folder of a run with the runs among which it will choose."""

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
    local_path(path, "run_dir")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"run_dir={path} cannot be made: {reason}") from None
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
    mark_own(path)
    return path.absolute()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory for this process; the system lets go of it when the process ends, however it ends.

    Nothing is written through a link below it.

    Raises:
        UsageError: another process is at work in it.
    """
    mark_own(path)
    with file_system.locked(path) as is_held:
        if not is_held:
            raise UsageError(f"{path}: another process is training in it; wait for its end, or stop it")
        yield


def run_of(resume: str) -> Path:
    """The run directory that `resume=` means, which holds a `last.ckpt`; the absolute path.

    Raises:
        UsageError: there is none.
    """
    path = local_path(resume, "resume", "only a local run directory can be continued")
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"resume={resume}: {what}; expected the directory of a run ({path.absolute()})")
    if not (path / "checkpoints" / "last.ckpt").is_file() and not (path / CANDIDATES).is_dir():
        why = "the run ended before its first checkpoint" if (path / "checkpoints").is_dir() else "it holds no run"
        raise UsageError(f"resume={resume}: there is no checkpoints/last.ckpt ({why}); start it anew with run_dir=…")
    for name in ("checkpoints", "config.yaml", "metrics.csv", "summary.json"):
        if (path / name).is_symlink():
            raise UsageError(f"resume={resume}: {name} is a link; a run is written in its own directory alone")
    return path.absolute()


def summary_of(run_dir: Path) -> Json:
    """The summary of a run; empty where there is none that can be read."""
    try:
        content = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _make(path: Path) -> None:
    if not path.exists():
        _make(path.parent)
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            if not path.is_dir():
                raise


MEMBERS = "members"
"""The folder of an ensemble that holds the run of each member, by its number from 0."""


def members_of(run: str | Path) -> list[Path]:
    """The runs that a path stands for: of an ensemble its finished members, in order, else itself.

    Raises:
        UsageError: no member of the ensemble is finished.
    """
    path = local_path(run, "run")
    folder = path / MEMBERS
    if not folder.is_dir() or (path / "checkpoints").is_dir():
        return [path]
    numbered = sorted((one for one in folder.iterdir() if one.name.isdecimal()), key=lambda one: int(one.name))
    finished = [one for one in numbered if summary_of(one).get("status") == "finished"]
    if not finished:
        raise UsageError(f"run={path}: the ensemble has no finished member; mlefw train resume={path} goes on with it")
    return finished


def checkpoint_of(run: str | Path, name: str = "best.ckpt") -> Path:
    """The checkpoint file meant by a run directory or by a file itself.

    Raises:
        UsageError: neither is there.
    """
    path = local_path(run, "run")
    if not path.exists():
        raise UsageError(f"run={path}: there is no such file or directory ({path.absolute()})")
    if path.is_dir():
        file = path / "checkpoints" / name
        if not file.is_file():
            raise UsageError(f"run={path}: the directory holds no checkpoints/{name}")
        return file
    return path
