"""Opening a data file that a user named, with a message for every way in which this can fail."""

import gzip
import stat
import zlib
from difflib import get_close_matches
from pathlib import Path

from mlefw.errors import UsageError

FOREIGN = {
    b"PAR1": "is a Parquet file: read it with data=parquet",
    b"PK\x03\x04": "is a zip archive or an Excel workbook: save the table as CSV",
    b"ARROW1": "is an Arrow file: save the table as Parquet or CSV",
    b"\x89HDF": "is an HDF5 file: save the table as Parquet or CSV",
}


def regular_file(path: str | None, setting: str) -> Path:
    """The absolute path of a readable regular file; nothing else is ever opened, so that a pipe cannot hang a run.

    Raises:
        UsageError: the path is empty, missing, a directory, a pipe or a device.
    """
    if not path:
        raise UsageError(f"{setting} is not set\n  expected: the path of a file, e.g. {setting}=table.csv")
    file = Path(path).expanduser().absolute()
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


def read_bytes(file: Path) -> bytes:
    """All bytes of a file, unpacked if it is gzip.

    Raises:
        UsageError: the file cannot be read or unpacked, is empty, or is of a binary format.
    """
    try:
        raw = file.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    if not raw:
        raise UsageError(f"{file} is empty (0 bytes)\n  expected: a header line and data rows")
    for magic, message in FOREIGN.items():
        if raw.startswith(magic):
            raise UsageError(f"{file} {message}")
    return raw


def _near(file: Path) -> str:
    names = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    near = get_close_matches(file.name, names, n=1)
    return f"\n  did you mean {file.parent / near[0]}?" if near else ""
