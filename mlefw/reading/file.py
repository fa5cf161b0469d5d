"""Opening of data files, with a message for every way in which it can fail."""

import glob
import gzip
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from io import SEEK_END
from pathlib import Path
from typing import IO, Any

from mlefw.errors import UsageError
from mlefw.reading.remote.file import RemoteFile, remote_files
from mlefw.system.address import is_remote, public
from mlefw.system.local_path import local_path

_ONLY = "only local files are read here (data=csv and data=parquet take s3://, gs:// and https://)"

DataFile = Path | RemoteFile
"""A file of rows: on this machine, or at an address."""

# First bytes of binary formats that users pass by mistake, and what to tell them.
FOREIGN = {
    b"PAR1": "is a Parquet file: read it with data=parquet",
    b"PK\x03\x04": "is a zip archive or an Excel workbook: save the table as CSV",
    b"ARROW1": "is an Arrow file: save the table as Parquet or CSV",
    b"\x89HDF": "is an HDF5 file: save the table as Parquet or CSV",
}


def place(path: str, setting: str) -> Path:
    """The absolute path of a file or folder; a leading `~` is the home directory, unless a file of that name exists."""
    plain = local_path(path, setting, _ONLY)
    try:
        return (plain if plain.exists() else plain.expanduser()).absolute()
    except (OSError, ValueError, RuntimeError):
        # The caller reports what is wrong with the path.
        return plain.absolute()


def regular_file(path: str | None, setting: str) -> Path:
    """The absolute path of a regular file; a pipe is refused, because reading it could hang a run.

    Raises:
        UsageError: the path is empty, does not exist, or is a directory, pipe or device.
    """
    if not path:
        raise UsageError(f"{setting} is not set\n  expected: the path of a file, e.g. {setting}=table.csv")
    file = place(path, setting)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{file} does not exist ({setting}){_near(file)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error} ({setting})") from None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{file} is a directory\n  expected: one file in {setting}")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{file} is not a regular file but a pipe, socket or device\n  expected: a file in {setting}")
    return file


def regular_files(path: str | None, setting: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The file at a path; or the files of a folder with one of `suffixes`; or the files that match `*`, `?` and `[]`.

    Several files are sorted by name.

    Raises:
        UsageError: there is no file, or one is not a regular file.
    """
    folder = place(path or "", setting)
    if path and folder.is_dir():
        found = sorted(file for file in folder.iterdir() if file.name.endswith(suffixes) and file.name[0] not in "._")
        if not found:
            raise UsageError(f"{folder} is a directory without files that end in {' or '.join(suffixes)} ({setting})")
    elif path and re.search(r"[*?\[]", path) and not folder.exists():
        found = [Path(name) for name in sorted(glob.glob(str(folder), recursive=True)) if not Path(name).is_dir()]  # noqa: PTH207 (takes absolute patterns)
        if not found:
            raise UsageError(f"{folder} matches no file ({setting})")
    else:
        return [regular_file(path, setting)]
    return [regular_file(str(file), setting) for file in found]


def data_files(path: str | None, setting: str, suffixes: tuple[str, ...], copies: str | None) -> list[DataFile]:
    """The files that `regular_files` finds on this machine, or `remote_files` at an address.

    Args:
        path: of a file or folder, a pattern, or an address.
        setting: the setting that holds it.
        suffixes: endings of the files of a folder that are read.
        copies: the folder in which copies of remote files are kept, if any.

    Raises:
        StorageError: a connection broke.
        UsageError: there is no file, or one cannot be read.
    """
    if path and is_remote(path):
        return [*remote_files(path, setting, suffixes, copies)]
    return [*regular_files(path, setting, suffixes)]


def origin_of(path: str) -> str:
    """The name of several files together, for messages: the absolute path of their folder, or the address."""
    return public(path) if is_remote(path) else str(Path(path).absolute())


@contextmanager
def binary(file: DataFile, whole: bool = True) -> Iterator[IO[bytes]]:
    """A stream of the bytes of a file.

    Args:
        file: the file.
        whole: whether all of it is read, which makes larger pieces of what comes from another machine.

    Raises:
        OSError: a file of this machine cannot be read.
        StorageError, UsageError: as `RemoteFile.opened`.
    """
    if isinstance(file, RemoteFile):
        with file.opened(whole) as stream:
            yield stream
    else:
        with file.open("rb") as stream:
            yield stream


@contextmanager
def opened(file: DataFile) -> Iterator[tuple[IO[bytes], Callable[[], float]]]:
    """A stream of the bytes of a file, decompressed if it is gzip, and a function that gives the share read so far.

    Raises:
        UsageError: the file cannot be read or decompressed, is empty, or has a binary format.
    """
    try:
        with binary(file) as source:
            packed: Any = source
            size = max(packed.seek(0, SEEK_END), 1)
            packed.seek(0)
            start = packed.peek(4)[:4]
            stream: Any = gzip.open(packed) if start.startswith(b"\x1f\x8b") else packed  # noqa: SIM115 (ends with it)
            if not stream.peek(1):
                raise UsageError(f"{file} is empty (0 bytes)\n  expected: a header line and data rows")
            for magic, message in FOREIGN.items():
                if start.startswith(magic):
                    raise UsageError(f"{file} {message}")
            yield stream, lambda: packed.tell() / size
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def _near(file: Path) -> str:
    names = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    near = get_close_matches(file.name, names, n=1)
    return f"\n  did you mean {file.parent / near[0]}?" if near else ""
