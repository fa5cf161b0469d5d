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
"""The folder of a run with `inputs=auto`: a run for each candidate, of which one will be kept."""

SUPERSEDED = "superseded"
"""The folder of a sweep with the failed attempts of jobs that were run again."""


def default_path(kind: str = "outputs") -> Path:
    """`<kind>/<date>/<time>-<process>`; the time has microseconds, so that no two runs get the same path."""
    now = datetime.now().astimezone()
    return Path(kind) / now.strftime("%Y-%m-%d") / f"{now.strftime('%H-%M-%S-%f')}-{os.getpid()}"


def check_free(path: Path) -> None:
    """Refuse a path at which no run directory can be made; nothing is written.

    Raises:
        UsageError: it is a directory that is not empty, a link or a file, or cannot be written to.
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
    """Make a run directory with the folder `checkpoints`; its absolute path.

    Of two processes that do so at once, the one that makes `checkpoints` gets the directory.

    Raises:
        UsageError: another run has the directory, or it cannot be made.
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
    """Lock a run directory for this process; the system releases the lock when the process ends, however it ends.

    From then on nothing is written through a link below the directory (see `own_folder`).

    Raises:
        UsageError: another process holds the lock.
    """
    mark_own(path)
    with file_system.locked(path) as is_held:
        if not is_held:
            raise UsageError(f"{path}: another process is training in it; wait for its end, or stop it")
        yield


def run_of(resume: str) -> Path:
    """The absolute path of the run directory that `resume=` names.

    Raises:
        UsageError: it is no run directory, or holds nothing to go on from.
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
    """The content of `summary.json` of a run; empty if there is none that can be read."""
    try:
        content = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _make(path: Path) -> None:
    """Make a directory and those above it, also while another process does so."""
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
    """The runs that a path stands for: the finished members of an ensemble, in their order; else the path itself.

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
    """The checkpoint file `name` of a run directory; a path to a file is returned as it is.

    Raises:
        UsageError: there is no such file.
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
