"""Addresses of files on other machines, and the secrets in them, which are kept apart from what is shown and stored.

An address may hold a password (`https://user:password@host/a.csv`) or a signature (`https://host/a.csv?signature=…`).
Settings are written to files and shown in messages, so they hold addresses without these parts. The whole addresses are
in an environment variable, which processes that are started for a run or a sweep inherit, on this machine alone.
"""

import json
import os
import re
from collections.abc import Iterable

from mlefw.errors import UsageError

VARIABLE = "MLEFW_ADDRESSES"
"""The environment variable: a JSON object of whole addresses by what is shown of them."""

_READ = re.compile(r"(s3|gs|https?)://", re.IGNORECASE)
_USER = r"(?:[^\s/?#'\"]*@|[^\s/?#'\":]+:(?!\d+(?:/|$))[^\s'\"@]*@)"
"""User and password. Keys of Amazon hold slashes; what follows a colon may also be a port."""
_QUERY = r"(?:[?#](?:(?!,\w+://)[^\s'\"])*?(?=[)\]}]*(?:[\s'\"]|,\w+://|$)))"
"""From `?` to the end of the address, which in a list of swept values is a comma before the next one, or a bracket."""
_WEB = re.compile(rf"(https?://)({_USER})?([^\s?#'\"]*?)({_QUERY})?(?=[\s'\"?#)\]}}]|,\w+://|$)", re.IGNORECASE)
_OTHER = re.compile(rf"((?!https?:)\b[a-z][a-z0-9+.-]+://)({_USER})", re.IGNORECASE)
"""Elsewhere `?` and `#` are signs of patterns and names."""


def is_remote(path: str) -> bool:
    """Whether a path is an address from which data can be read: of the scheme s3, gs, https or http."""
    return _READ.match(path) is not None


def public(text: str) -> str:
    """A text in which addresses are without user, password and query."""
    return _OTHER.sub(r"\1", _WEB.sub(lambda found: found[1] + found[3], text))


def withheld(texts: Iterable[str]) -> list[str]:
    """Texts as by `public`; the parts that they lose are kept for `whole`.

    Raises:
        UsageError: two addresses differ in nothing else; or one that is not of the web has a user or a password.
    """
    found: dict[str, str] = {}
    texts = list(texts)
    for text in texts:
        if other := _OTHER.search(text):
            raise UsageError(
                f"{other[1]}… is given with a user or a password, which are not shown"
                "\n  expected: credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        for match in _WEB.finditer(text):
            full, shown = match[0], public(match[0])
            if found.setdefault(shown, full) != full:
                raise UsageError(
                    f"{shown} is given with two users or queries, which are not shown\n  expected: one in a command"
                )
    secrets = {shown: full for shown, full in found.items() if shown != full}
    if secrets:
        os.environ[VARIABLE] = json.dumps({**_known(), **secrets})
    return [public(text) for text in texts]


def whole(address: str) -> str:
    """The address to which `address` was shortened by `withheld`, or itself."""
    return _known().get(address, address)


def _known() -> dict[str, str]:
    known: dict[str, str] = json.loads(os.environ.get(VARIABLE, "{}"))
    return known
