"""Lists of image files: those of a folder, and the label that a sub-folder gives them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.columns import shown
from mlefw.reading.picture import SUFFIXES, text
from mlefw.system.warning import warn

_SYSTEM = ("Thumbs.db", "desktop.ini")
"""Files that a system puts into folders by itself."""


class Found(NamedTuple):
    """Image files of a folder, sorted.

    Attributes:
        files: the files.
        names: their paths below the folder, with `/` between names.
        labels: the name of the sub-folder that each lies in or below; None where there are no labels.
    """

    files: list[Path]
    names: list[str]
    labels: np.ndarray | None


def labelled_files(folder: Path, setting: str, known: Sequence[str] | None, few: bool = False) -> Found:
    """The image files in the sub-folders of a folder, whose names are the labels.

    Args:
        folder: the folder.
        setting: the setting that names it.
        known: all labels that there may be; None for any.
        few: whether one label alone is enough.

    Raises:
        UsageError: there are no image files; some lie beside the sub-folders; one sub-folder; unknown labels.
    """
    files, names = _listed(folder)
    if outside := [name for name in names if "/" not in name]:
        raise UsageError(
            f"{folder}: image files lie in no sub-folder, whose name would be the label ({setting})"
            f"\n  {shown(outside, 5)}\n  expected: {folder.name}/LABEL/{outside[0]}, or a table of files and targets: "
            "data.table=labels.csv"
        )
    labels = np.array([name.split("/")[0] for name in names], dtype=object)
    levels = sorted(set(labels.tolist()))
    if not files:
        raise UsageError(
            f"{folder} has no image files ({setting})\n  expected: a sub-folder for each label, with files that end in "
            ".png, .jpg and the like"
        )
    if known is None and len(levels) < 2 and not few:
        raise UsageError(
            f"{folder} has one sub-folder with images, {levels[0]!r} ({setting})\n  expected: a sub-folder for each of "
            "two labels or more, or a table of files and targets: data.table=labels.csv"
        )
    if strange := [level for level in levels if known is not None and level not in known]:
        raise UsageError(
            f"{folder}: sub-folders {shown(strange, 5)} are none of the labels ({setting})"
            f"\n  expected: {shown(known or ())}"
        )
    empty = [text(one.name) for one in folder.iterdir() if one.is_dir() and _is_seen(one.name)]
    if empty := sorted(set(empty) - set(levels)):
        warn(f"{folder}: sub-folders {shown(empty, 5)} have no image files, and no row has these labels")
    return Found(files, names, labels)


def new_files(folder: Path, setting: str, known: Sequence[str]) -> Found:
    """The image files in and below a folder, for predictions; with labels where all lie in sub-folders named by them.

    Raises:
        UsageError: there are no image files.
    """
    files, names = _listed(folder)
    if not files:
        raise UsageError(
            f"{folder} has no image files ({setting})\n  expected: files that end in .png, .jpg and the like"
        )
    parents = [name.split("/")[0] if "/" in name else None for name in names]
    labels = np.array(parents, dtype=object) if set(parents) <= set(known) else None
    return Found(files, names, labels)


def _listed(folder: Path) -> tuple[list[Path], list[str]]:
    """The image files in and below a folder, sorted by their names, which are returned, too."""
    found, others = list[tuple[str, Path]](), list[str]()
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_seen(name)]
        for file in (Path(at, name) for name in files if _is_seen(name)):
            name = text(file.relative_to(folder).as_posix())
            if file.suffix.lower() in SUFFIXES and file.is_file():
                found.append((name, file))
            elif "/" in name:
                others.append(name)
    if others:
        named = shown(sorted(others), 5)
        warn(f"{folder}: files whose names do not end as those of images are left out: {named}")
    found.sort()
    return [file for _, file in found], [name for name, _ in found]


def _is_seen(name: str) -> bool:
    return not name.startswith((".", "__MACOSX")) and name not in _SYSTEM
