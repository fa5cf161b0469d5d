"""`Content`, the bytes at an address, of which ranges are fetched; and a stream of them."""

import io
from abc import ABC, abstractmethod
from typing import IO, Any, NamedTuple

from mlefw.errors import UsageError

PIECE_BYTES = 2**23
"""Bytes that are asked for at a time where a file is read from its beginning to its end."""


class Version(NamedTuple):
    """What tells two states of a remote file apart.

    Attributes:
        size: number of bytes.
        tag: what the server calls this state (ETag) or the time of the last change; empty where it says neither.
    """

    size: int
    tag: str


class Content(ABC):
    """The bytes at an address.

    Attributes:
        address: without secrets, for messages.
        version: the state that is read.
    """

    address: str
    version: Version

    @abstractmethod
    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, which is at most the size.

        Raises:
            StorageError: the connection broke, also when it was tried again.
            UsageError: the file has changed, is gone, or may not be read.
        """

    @abstractmethod
    def current(self) -> Version:
        """The version that the server has now; raises as `fetch`."""

    def check(self) -> None:
        """Check that the server still has the version that was read.

        Raises:
            UsageError: it has another one.
        """
        if (now := self.current()) != self.version:
            raise self.changed(now)

    def changed(self, now: Version) -> UsageError:
        """The error for a file of which the server has another version by now."""
        before = self.version
        same = "its content differs, with as many bytes"
        what = same if now.size == before.size else f"it has {now.size:,} bytes, and had {before.size:,}"
        return UsageError(
            f"{self.address} changed while it was read: {what}\n  expected: a file that is complete; start again"
        )

    @abstractmethod
    def close(self) -> None:
        """Give back what the content holds on this machine."""


class RemoteStream(io.RawIOBase):
    """A stream that fetches each range that is read, and no other."""

    def __init__(self, content: Content) -> None:
        super().__init__()
        self.content, self.position = content, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which is returned; nothing is fetched."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.content.version.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fetched at once, or fewer at the end of the file."""
        if size is None or size < 0:
            return self.readall()
        stop = min(self.position + size, self.content.version.size)
        found = self.content.fetch(self.position, stop) if stop > self.position else b""
        self.position += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; the number of bytes."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def readall(self) -> bytes:
        """All bytes that are left, fetched in pieces."""
        # `getvalue` makes no second copy.
        whole = io.BytesIO()
        while piece := self.read(PIECE_BYTES):
            whole.write(piece)
        return whole.getvalue()


def buffered(content: Content) -> IO[bytes]:
    """A stream of a content that is read from its beginning, in pieces of `PIECE_BYTES`."""
    return io.BufferedReader(RemoteStream(content), PIECE_BYTES)
