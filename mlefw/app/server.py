"""The HTTP server of `mlefw app`, which is bound to the loopback interface."""

import json
import socket
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mlefw.app.request import answer
from mlefw.command.outermost import finish_imports
from mlefw.errors import UsageError
from mlefw.system.inert_text import escaped
from mlefw.system.terminal import console

_HOST = "127.0.0.1"
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; img-src data:"

_OWN = ("127.0.0.1", "localhost")
"""Host names under which the page may be asked for."""
_MOST_CLIENTS = 32
"""Most simultaneous connections; a browser opens half a dozen."""
_REQUEST_S = 10.0
"""Seconds that a client may take to send its request, and to receive the answer."""

_COMPUTING = threading.Lock()
"""Held while an answer is computed, because Matplotlib's settings are global to the process."""


class Page(BaseHTTPRequestHandler):
    """Request handler for the page and, one at a time, for comparisons of descents."""

    server_version = "mlefw"
    timeout = _REQUEST_S

    def setup(self) -> None:
        """Limit the time for the whole request; `timeout` limits each read only, so that a slow client could stay."""
        super().setup()
        self._limit = threading.Timer(_REQUEST_S, self._give_up)
        self._limit.daemon = True
        self._limit.start()

    def finish(self) -> None:
        """Cancel the time limit when the connection ends."""
        self._limit.cancel()
        super().finish()

    def do_GET(self) -> None:
        """Serve the page at `/`, and comparisons of descents as JSON at `/race?head=…`."""
        self._limit.cancel()
        url = urlsplit(self.path)
        if not _is_own(self.headers.get("Host") or ""):
            # DNS rebinding: a foreign page whose host name resolves to this machine sends its own host name.
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for this machine")
        elif url.path == "/":
            page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif url.path == "/race":
            self._race(url.query)
        elif url.path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, "image/x-icon", "")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page")

    def _race(self, query: str) -> None:
        """Answer a query with a comparison, unless the browser no longer waits for it."""
        if self._is_foreign():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for the page of this program")
            return
        with _COMPUTING:
            if self._has_left():
                # The slider was moved while this request waited, and the browser has dropped it.
                return
            try:
                content, status = answer(dict(parse_qsl(query))), HTTPStatus.OK
            except UsageError as error:
                content, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
        self._send(status, "application/json", json.dumps(content))

    def _is_foreign(self) -> bool:
        """Whether a page of another origin sends the request, which browsers state in one of these headers."""
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return True
        own = (self.headers.get("Host") or "").lower()
        given = (self.headers.get(name) for name in ("Origin", "Referer"))
        return any(urlsplit(origin).netloc.lower() != own for origin in given if origin is not None)

    def _has_left(self) -> bool:
        """Whether the client has closed the connection."""
        self.connection.settimeout(0)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(_REQUEST_S)

    def _give_up(self) -> None:
        """Close the connection of a client that is too slow."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The connection has ended already.
            return

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests: the terminal shows the address only."""


class Server(ThreadingHTTPServer):
    """A server with one thread for each client, up to a limit; a client that disconnects is not an error."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self._places = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__(address, Page)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse a client beyond the limit, rather than let it wait for another that may never end."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error in one line; nothing if a client has disconnected or was too slow."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            console(stderr=True).print(escaped(f"mlefw app: {type(error).__name__}: {error}"), markup=False)


def serve(arguments: Sequence[str]) -> int:
    """Run `mlefw app`: serve the page until a signal ends it.

    Args:
        arguments: of the command line: `port=NUMBER` or nothing.

    Raises:
        UsageError: there is another argument, or the port cannot be used.
    """
    finish_imports()
    with open_server(port_of(arguments)) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        console().print(f"open {address} in a browser on this machine; Ctrl+C ends it", soft_wrap=True)
        server.serve_forever()
    return 0


def open_server(port: int) -> Server:
    """A server on the loopback interface; port 0 takes a free one.

    Raises:
        UsageError: the port is taken or out of range.
    """
    try:
        return Server((_HOST, port))
    except (OSError, OverflowError) as error:
        raise UsageError(f"port={port} cannot be used: {error}; expected a free one, such as port=0") from error


def port_of(arguments: Sequence[str]) -> int:
    """The port given on the command line, 8000 by default.

    Raises:
        UsageError: there is any argument other than port=NUMBER.
    """
    port = 8000
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "port" or not value.isdigit():
            raise UsageError(f"{argument}: mlefw app takes port=NUMBER and no other argument")
        port = int(value)
    return port


def _is_own(host: str) -> bool:
    """Whether a `Host` header names this machine, with any port."""
    return host.lower().rsplit(":", 1)[0] in _OWN
