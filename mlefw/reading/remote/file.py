"""`RemoteFile`, a data file on another machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from mlefw.errors import MlefwError, UsageError
from mlefw.reading.remote.content import PIECE_BYTES, Content, RemoteStream, Version, buffered
from mlefw.reading.remote.copies import copy_of
from mlefw.reading.remote.listing import listed
from mlefw.reading.remote.store import StoredContent
from mlefw.reading.remote.web import WebContent
from mlefw.system import address as addresses

_FIRST_BYTES = 4
"""Bytes that are fetched first of a file of which parts are read: they tell the format."""


@dataclass
class RemoteFile:
    """A file at an address of the scheme s3, gs, https or http.

    Attributes:
        address: without secrets; `system.address` has the whole.
        copies: the folder of this machine in which a copy is kept, if any.
        version: the state that was read, if it was read before.
    """

    address: str
    copies: str | None = None
    version: Version | None = field(default=None, init=False)

    def __str__(self) -> str:
        """The address."""
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @contextmanager
    def opened(self, whole: bool) -> Iterator[IO[bytes]]:
        """A stream of the bytes, which is closed at the end.

        Args:
            whole: whether all of it is read, in pieces of some megabytes; else only the ranges that are read are
                fetched.

        Raises:
            StorageError: the connection broke, also when it was tried again.
            UsageError: there is no such file, it may not be read, or it has changed since it was first read.
        """
        content = self._content(whole)
        try:
            if self.version not in (None, content.version):
                raise content.changed(content.version)
            self.version = content.version
            if self.copies:
                with copy_of(content, self.copies).open("rb") as file:
                    yield file
                return
            try:
                yield buffered(content) if whole else cast(IO[bytes], RemoteStream(content))
            except MlefwError as error:
                # What comes from two versions of a file looks damaged.
                if isinstance(error, UsageError):
                    content.check()
                raise
            except Exception:
                content.check()
                raise
            content.check()
        finally:
            content.close()

    def _content(self, whole: bool) -> Content:
        if self.address.lower().startswith("http"):
            return WebContent(self.address, PIECE_BYTES if whole and not self.copies else _FIRST_BYTES)
        return StoredContent(self.address)


def remote_files(path: str, setting: str, suffixes: tuple[str, ...], copies: str | None = None) -> list[RemoteFile]:
    """The file at an address; or the files of a folder or pattern of an object store, sorted.

    Args:
        path: the address, which may hold secrets.
        setting: the setting that holds it, for messages.
        suffixes: endings of the files of a folder that are read.
        copies: the folder for copies, if they are kept.

    Raises:
        StorageError: the connection broke, also when it was tried again.
        UsageError: there is no file, or it may not be read.
    """
    [address] = addresses.withheld([path])
    if address.lower().startswith("http"):
        if "*" in address:
            raise UsageError(
                f"{setting}={address}: a web server does not list its files"
                "\n  expected: the address of one file, or a pattern of s3:// or gs://"
            )
        return [RemoteFile(address, copies)]
    return [RemoteFile(found, copies) for found in listed(address, suffixes, setting)]
