"""A request for a range of bytes of a file on the web."""

import base64
import netrc
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult, quote, unquote, urldefrag, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mlefw.errors import UsageError
from mlefw.system import address as addresses

TIMEOUT_S = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_AS_IT_IS = "/%:@!$&'()*+,;=~"
"""Signs of an address that are sent unchanged; spaces and letters beyond ASCII are coded."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirections to the web, but not from an encrypted connection to one that is not."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if urlsplit(newurl).scheme not in ({"https"} if req.type == "https" else {"https", "http"}):
            raise UsageError(f"{addresses.public(req.full_url)} leads elsewhere\n  expected: a file behind {req.type}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = build_opener(_Redirects)


def send(address: str, start: int, stop: int) -> HTTPResponse:
    """The answer of the server to a request for the bytes from `start` to `stop` of a file.

    Args:
        address: without secrets; those that belong to it are sent.
        start: position of the first byte.
        stop: position behind the last byte.

    Raises:
        HTTPError: the server refuses.
        HTTPException, OSError: there is no connection.
        UsageError: it is no address, or leads to one of another kind.
    """
    full = addresses.whole(address)
    try:
        url = urlsplit(urldefrag(full)[0])
        # Reading the port checks it.
        host = f"{url.hostname or ''}{'' if url.port is None else f':{url.port}'}"
    except ValueError:
        host = ""
    if not host:
        raise UsageError(f"{address} is no address of a file\n  expected: https://host/path")
    host = f"[{url.hostname}]{host[len(url.hostname or '') :]}" if ":" in (url.hostname or "") else host
    query = quote(url.query, safe=_AS_IT_IS + "?")
    request = Request(urlunsplit((url.scheme, host, quote(url.path, safe=_AS_IT_IS), query, "")))
    request.add_header("Range", f"bytes={start}-{stop - 1}")
    request.add_header("Accept-Encoding", "identity")
    if credentials := _credentials(url):
        # Not for the server that a redirection leads to.
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return cast(HTTPResponse, _OPENER.open(request, timeout=TIMEOUT_S))


def _credentials(url: SplitResult) -> str:
    """The user and the password of an address, or of ~/.netrc, as HTTP sends them; empty without."""
    user, password = unquote(url.username or ""), unquote(url.password or "")
    if not user:
        try:
            found = netrc.netrc().authenticators(url.hostname or "")
        except FileNotFoundError:
            found = None
        except (netrc.NetrcParseError, OSError) as error:
            # The message of the error may quote the file.
            raise UsageError(f"{Path.home() / '.netrc'} cannot be read ({type(error).__name__})") from None
        user, password = (found[0], found[2] or "") if found else ("", "")
    return base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
