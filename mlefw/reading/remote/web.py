"""Files of web servers (https and http), of which ranges are fetched where the server gives ranges."""

import re
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from socket import gaierror
from tempfile import gettempdir
from typing import IO
from urllib.error import HTTPError, URLError

from mlefw.errors import MlefwError, StorageError, UsageError
from mlefw.reading.remote.content import PIECE_BYTES, Content, Version
from mlefw.reading.remote.request import TIMEOUT_S, send
from mlefw.system.file_system import unnamed_file

WAITS_S = (0.5, 1.0, 2.0)
"""Seconds until a request is made again, after each of its failures but the last."""

_PART, _NOTHING_THERE, _SERVER = 206, 416, 500
_PASSING = (408, 425, 429)
"""Codes of errors below 500 that pass."""
_MISSING = (404, 410)
_DENIED = (401, 403, 407)


class _BrokenError(Exception):
    """A connection that ended early."""


class WebContent(Content):
    """The file at an address of the web.

    The first request, for its first bytes, tells the size: servers of signed addresses answer no other kind. A server
    that gives no ranges sends the whole file, which is kept in a temporary file.

    Args:
        address: as `system.address.withheld` returns it.
        first: number of bytes that are read first.

    Raises:
        StorageError, UsageError: as `fetch`.
    """

    def __init__(self, address: str, first: int) -> None:
        self.address, self.version = address, Version(-1, "")
        self.file: IO[bytes] | None = None
        self.head = self._tried(0, first)

    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`; see `Content.fetch`."""
        if self.file is not None:
            self.file.seek(start)
            return self.file.read(stop - start)
        if start < len(self.head):
            known = self.head[start:stop]
            return known + (self._tried(len(self.head), stop) if stop > len(self.head) else b"")
        return self._tried(start, stop)

    def current(self) -> Version:
        """The version that was read: each answer of the server was compared with the first one."""
        return self.version

    def close(self) -> None:
        """Delete the temporary file."""
        if self.file is not None:
            self.file.close()

    def _tried(self, start: int, stop: int) -> bytes:
        """The bytes of a range, asked for again where the connection breaks or the server is busy."""
        reason = ""
        for wait in (*WAITS_S, None):
            try:
                return self._part(start, stop)
            except HTTPError as error:
                error.close()
                if error.code < _SERVER and error.code not in _PASSING:
                    raise self._refusal(error.code) from None
                reason = f"the server answered {error.code}"
            except (HTTPException, _BrokenError, OSError) as error:
                cause = error.reason if isinstance(error, URLError) else error
                if isinstance(cause, ssl.SSLCertVerificationError):
                    what = f"the certificate of its server is not trusted ({cause.verify_message})"
                    raise UsageError(f"{self.address}: {what}") from None
                reason = _reason(cause)
            if wait is not None:
                time.sleep(wait)
        raise StorageError(
            f"{self.address} could not be read: asked {len(WAITS_S) + 1} times for bytes {start:,} to {stop - 1:,}, "
            f"and the last time {reason}"
        )

    def _refusal(self, code: int) -> MlefwError:
        if code in _MISSING:
            return UsageError(f"{self.address} does not exist: the server answered {code}")
        if code in _DENIED:
            return UsageError(
                f"{self.address} may not be read: the server answered {code}"
                "\n  expected: a user and a password in ~/.netrc; or a signed address that is still valid, on each "
                "command line, since signatures are not stored"
            )
        return UsageError(f"{self.address} cannot be read: the server answered {code}")

    def _part(self, start: int, stop: int) -> bytes:
        """The bytes of a range, by one request; the first one sets `version`."""
        try:
            answer = send(self.address, start, stop)
        except HTTPError as error:
            if error.code != _NOTHING_THERE:
                raise
            # Empty, or shorter by now.
            error.close()
            self._compare(_version(error.headers, _total(error.headers) or 0))
            return b""
        with answer:
            total = _total(answer.headers)
            if answer.status != _PART or total is None:
                return self._kept(answer, start, stop)
            self._compare(_version(answer.headers, total))
            if not str(answer.headers["Content-Range"]).startswith(f"bytes {start}-{min(stop, total) - 1}/"):
                raise _BrokenError("the server sent another range")
            return answer.read()

    def _compare(self, version: Version) -> None:
        if self.version.size < 0:
            self.version = version
        elif version != self.version:
            raise self.changed(version)

    def _kept(self, answer: HTTPResponse, start: int, stop: int) -> bytes:
        """Keep the whole file, which the server sends, in a temporary file; the bytes of a range."""
        folder = Path(gettempdir())
        try:
            file = unnamed_file(folder)
        except OSError as error:
            raise StorageError(f"{self.address} found no room in {folder}: {error.strerror}") from None
        with ExitStack() as failed:
            failed.callback(file.close)
            try:
                size = _copy(lambda: answer.read(PIECE_BYTES), file.write)
            except _NoRoomError as error:
                raise StorageError(f"{self.address} found no room in {folder}: {error}") from None
            if answer.length:
                raise _BrokenError(f"the connection ended after {size:,} bytes")
            self._compare(_version(answer.headers, size))
            failed.pop_all()
        self.file = file
        return self.fetch(start, stop)


class _NoRoomError(Exception):
    """The disk is full."""


def _copy(read: Callable[[], bytes], write: Callable[[bytes], int]) -> int:
    """Pass on all pieces; their number of bytes."""
    size = 0
    while piece := read():
        left = memoryview(piece)
        size += len(left)
        while left:
            try:
                left = left[write(left) :]  # type: ignore[arg-type]
            except OSError as error:
                raise _NoRoomError(error.strerror) from None
    return size


def _total(headers: Message) -> int | None:
    """The size of the whole file, if a server says it with a part."""
    found = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", headers["Content-Range"] or "")
    return int(found[1]) if found else None


def _version(headers: Message, size: int) -> Version:
    return Version(size, headers["ETag"] or headers["Last-Modified"] or "")


def _reason(error: object) -> str:
    """Why there is no answer. Messages of libraries are not passed on: they may quote the address."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT_S:g} s"
    if isinstance(error, gaierror):
        return "its host was not found"
    if isinstance(error, IncompleteRead):
        return f"the connection ended after {len(error.partial):,} bytes"
    if isinstance(error, _BrokenError):
        return str(error)
    words = getattr(error, "strerror", None) or type(error).__name__
    return f"there was no answer ({words})"
