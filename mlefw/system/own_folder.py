"""Folders that belong to a run: nothing written below one may leave it through a symbolic link."""

import os
from pathlib import Path

_own: set[Path] = set()


def mark_own(folder: Path) -> None:
    """Let `replace_links` work below this folder, in this process and its forks.

    The path of the folder itself may contain links: the user has chosen it.
    """
    _own.add(_plain(folder))


def replace_links(path: Path) -> Path:
    """The path itself, after symbolic links on the way from an own folder to it have been removed.

    A new folder replaces each link to a folder above the path; a link at the path is removed. The files that links
    point to are not touched. A path below no own folder is left as it is.

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
    """The path as absolute text without `..`; links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links
