"""Which objects of a store an address means: one, those of a folder, or those that match a pattern."""

import re
from fnmatch import fnmatchcase

from mlefw.reading.remote.store import bucket_and_key, explained, filesystem, missing

_SIGNS = re.compile(r"[*?\[]")


def listed(address: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    """The addresses of the objects that `address` means, sorted.

    Args:
        address: of an object; of a folder, whose objects with one of `suffixes` count, but not those of folders in it;
            or with `*`, `?` and `[]`, which match within a name, and `**`, which matches folders.
        suffixes: endings of the objects of a folder that are read.
        setting: the setting that holds the address, for messages.

    Raises:
        StorageError: the connection broke, also when it was tried again.
        UsageError: there is no object, or it may not be read.
    """
    scheme, (bucket, key) = address.partition("://")[0], bucket_and_key(address)
    from pyarrow.fs import FileType

    with explained(address, "its kind"):
        kind = filesystem(address).get_file_info(f"{bucket}/{key}".rstrip("/")).type
    if kind == FileType.File and not key.endswith("/"):
        return [address]
    if kind == FileType.Directory:
        names = _below(address, key.strip("/"), False)
        chosen = [name for name in names if name.endswith(suffixes) and name.rpartition("/")[2][0] not in "._"]
        what = f"is a folder without objects that end in {' or '.join(suffixes)}"
    elif _SIGNS.search(key):
        folders = key.split("/")
        depth = next(k for k, folder in enumerate(folders) if _SIGNS.search(folder))
        names = _below(address, "/".join(folders[:depth]), depth < len(folders) - 1 or folders[depth] == "**")
        chosen = [name for name in names if _matches(folders, name.split("/"))]
        what = "matches no object"
    else:
        raise missing(address)
    if not chosen:
        raise missing(address, f"{what} ({setting})")
    return [f"{scheme}://{bucket}/{name}" for name in sorted(chosen)]


def _below(address: str, folder: str, is_deep: bool) -> list[str]:
    """The keys of all objects in a folder; in the folders in it, too, if `is_deep`."""
    from pyarrow.fs import FileSelector, FileType

    bucket, _ = bucket_and_key(address)
    with explained(address, "the list of its objects"):
        found = filesystem(address).get_file_info(
            FileSelector(f"{bucket}/{folder}".rstrip("/"), recursive=is_deep, allow_not_found=True)
        )
    return [one.path[len(bucket) + 1 :] for one in found if one.type == FileType.File]


def _matches(folders: list[str], names: list[str]) -> bool:
    """Whether a pattern matches a key, both split at `/`; as in a shell, signs match no dot at the start of a name."""
    if not folders or not names:
        return not folders and not names
    if names[0].startswith(".") and not folders[0].startswith("."):
        return False
    if folders[0] == "**":
        return folders == ["**"] or _matches(folders[1:], names) or _matches(folders, names[1:])
    return fnmatchcase(names[0], folders[0]) and _matches(folders[1:], names[1:])
