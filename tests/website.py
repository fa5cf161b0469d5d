"""A web server on the loopback address, with ranges, and faults on request."""

import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Site:
    """What the server has and what it was asked.

    Attributes:
        url: its address.
        files: bytes by path.
        faults: what happens to the next requests, one each: a code; `cut`, the connection ends after half of the
            bytes; `silent`, it ends at once; a function that is called before the answer; None for no fault.
        ranges: whether ranges are given.
        tags: whether versions are told apart.
        log: for each request its path with the query, its headers and the number of bytes that were sent.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: deque[Any] = field(default_factory=deque)
    ranges: bool = True
    tags: bool = True
    moved: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, Any, int]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Bytes of content that were sent."""
        return sum(size for _, _, size in self.log)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            fault = site.faults.popleft() if site.faults else None
            if isinstance(fault, Callable):  # type: ignore[arg-type]
                fault()
            path = unquote(self.path.partition("?")[0])
            code = fault if isinstance(fault, int) else 302 if path in site.moved else 200
            if path not in site.files and path not in site.moved:
                code = 404
            content = site.files[path] if code == 200 else b""
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            whole, start = content, 0
            if code == 200 and found and site.ranges:
                start, stop = int(found[1]), min(int(found[2]) + 1, len(whole))
                content, code = whole[start:stop], 206 if start < len(whole) else 416
            cut = len(content) // 2 if fault == "cut" else len(content)
            site.log.append((self.path, self.headers, cut))
            if fault == "silent":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            if code == 302:
                self.send_header("Location", site.moved[path])
            if site.tags:
                self.send_header("ETag", f'"{hash(whole)}"')
            if code in (206, 416):
                part = f"{start}-{start + len(content) - 1}" if code == 206 else "*"
                self.send_header("Content-Range", f"bytes {part}/{len(whole)}")
            self.end_headers()
            self.wfile.write(content[:cut])
            self.close_connection = True

    return Handler


@contextmanager
def website() -> Iterator[Site]:
    """A server that ends with the block."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
