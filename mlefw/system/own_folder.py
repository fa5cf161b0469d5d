"""Folders in which a run writes alone: what is written below one never leaves it, whatever links lie on the way."""

import os
from pathlib import Path

_own: set[Path] = set()


def own(folder: Path) -> None:
    """From now on this process, and its forks, replace the links below a folder that they would write through.

    The folder itself may be reached by a link: it is where a person has said.
    """
    _own.add(_plain(folder))


def cleared(path: Path) -> Path:
    """The same path, to be written to; below an own folder each link on the way is replaced.

    A link above the path gives way to a folder, and a link at the path to nothing. What a link leads to is untouched.

    Raises:
        OSError: a link could not be removed.
    """
    whole = _plain(path)
    for folder in [above for above in whole.parents if above in _own]:
        for part in reversed([whole, *whole.parents[: len(whole.parts) - len(folder.parts) - 1]]):
            if part.is_symlink():
                part.unlink()
                if part != whole:
                    part.mkdir(mode=0o755)
    return path


def _plain(path: Path) -> Path:
    """Absolute and without `..`, by its text alone."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links
