"""Paths that a user names: on this machine, and no address of another one."""

import re
from pathlib import Path
from urllib.parse import unquote

from mlefw.errors import UsageError


def local_path(path: str | Path, setting: str, only: str = "only local files are read and written") -> Path:
    """The path, as it is; of `file:///a/b` that of the file.

    Args:
        path: what the user gave. A `Path` has one slash left of the two after a scheme.
        setting: by which the user gave it.
        only: what can be done instead.

    Raises:
        UsageError: it is an address such as `s3://bucket/a.parquet`.
    """
    text = str(path)
    # A single letter would be a drive of Windows.
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme is None:
        return Path(path)
    if (file := re.fullmatch(r"file:(?://(?:localhost)?)?(/[^/].*)", text, re.IGNORECASE)) is not None:
        return Path(unquote(file[1]))
    address = text if "://" in text else text.replace(":/", "://", 1)
    raise UsageError(
        f"{setting}={address}: {only}, and {scheme[1]}:// is elsewhere"
        "\n  expected: a path on this machine; fetch the file first, or mount where it is"
    )
