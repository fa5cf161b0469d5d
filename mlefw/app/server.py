"""The server behind `mlefw app`: the standard library's, bound to the loopback interface."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from mlefw.app.request import answer
from mlefw.console import console
from mlefw.errors import UsageError
from mlefw.single import imported

_HOST = "127.0.0.1"
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; img-src data:"


class Page(BaseHTTPRequestHandler):
    """Answers for the page itself and for one race at a time."""

    server_version = "mlefw"

    def do_GET(self) -> None:
        """Serve `/` and `/race?head=…`."""
        # A foreign page whose name resolves to this machine would send its own name.
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in ("127.0.0.1", "localhost"):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for this machine")
            return
        url = urlsplit(self.path)
        if url.path == "/":
            page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif url.path == "/race":
            try:
                content, status = answer(dict(parse_qsl(url.query))), HTTPStatus.OK
            except UsageError as error:
                content, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
            self._send(status, "application/json", json.dumps(content))
        elif url.path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, "image/x-icon", "")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page")

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for the address."""


def serve(arguments: Sequence[str]) -> int:
    """Serve the page until a signal ends it."""
    imported()
    with open_server(port_of(arguments)) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        console().print(f"open {address} in a browser on this machine; Ctrl+C ends it", soft_wrap=True)
        server.serve_forever()
    return 0


def open_server(port: int) -> ThreadingHTTPServer:
    """A server on the loopback interface; port 0 takes a free one.

    Raises:
        UsageError: the port is taken or out of range.
    """
    try:
        server = ThreadingHTTPServer((_HOST, port), Page)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port={port} cannot be used: {error}; expected a free one, such as port=0") from error
    server.daemon_threads = True
    return server


def port_of(arguments: Sequence[str]) -> int:
    """The port named on the command line, 8000 by default.

    Raises:
        UsageError: anything else is there.
    """
    port = 8000
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "port" or not value.isdigit():
            raise UsageError(f"{argument}: mlefw app takes port=NUMBER alone")
        port = int(value)
    return port
