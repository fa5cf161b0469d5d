"""Paths given by a user, which must be on this machine."""

import re
from pathlib import Path
from urllib.parse import unquote

from mlefw.errors import UsageError
from mlefw.system.address import public


def local_path(path: str | Path, setting: str, only: str = "only local files are read and written") -> Path:
    """The path itself, or the path in a `file:` address.

    Args:
        path: what the user gave. In a `Path`, only one slash is left of the two behind the scheme of an address.
        setting: name of the setting that holds the path, for the message.
        only: middle of the message, which says what is possible instead.

    Raises:
        UsageError: the path is an address such as `s3://bucket/a.parquet`.
    """
    text = str(path)
    # At least two letters: a single one is a drive of Windows.
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme is None:
        return Path(path)
    if (file := re.fullmatch(r"file:(?://(?:localhost)?)?(/[^/].*)", text, re.IGNORECASE)) is not None:
        return Path(unquote(file[1]))
    address = public(text if "://" in text else text.replace(":/", "://", 1))
    raise UsageError(
        f"{setting}={address}: {only}, and {scheme[1]}:// is elsewhere"
        "\n  expected: a path on this machine; fetch the file first, or mount where it is"
    )
