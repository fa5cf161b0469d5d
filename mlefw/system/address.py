"""Addresses of files on other machines: which may be read, and the secrets in them, which are neither shown nor stored.

Addresses are read where the user has named them: on the command line, as an argument of `mlefw.fit`, or by their
beginning in the environment variable `MLEFW_REMOTE`. One that a stored run or a YAML file names may be a stranger's.

An address may hold a password (`https://user:password@host/a.csv`) or a signature (`https://host/a.csv?signature=…`).
Settings are written to files and shown in messages, so they hold addresses without these parts. Whole addresses are in
an environment variable, which the processes of a run or a sweep on this machine inherit.
"""

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from mlefw.errors import UsageError

VARIABLE = "MLEFW_ADDRESSES"
"""The environment variable for the processes of a command: a JSON object of `named`, a list of addresses without
secrets, and `whole`, whole addresses by what is shown of them."""

ALLOWED = "MLEFW_REMOTE"
"""The environment variable with beginnings of addresses that may be read wherever they stand, such as
`s3://bucket https://host/folder`."""

_READ = re.compile(r"(s3|gs|https?)://", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:s3|gs|https?|sqlite|file)://(?:(?!,\w+://)[^\s'\"])*", re.IGNORECASE)
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
    if secrets := {shown: full for shown, full in found.items() if shown != full}:
        known = _known()
        os.environ[VARIABLE] = json.dumps({**known, "whole": {**known["whole"], **secrets}})
    return [public(text) for text in texts]


def whole(address: str) -> str:
    """The address that `withheld` shortened to `address`, or `address` itself."""
    return str(_known()["whole"].get(address, address))


def name(texts: Iterable[str]) -> None:
    """Note all addresses in texts as named by the user; of one with `${`, what stands before it."""
    found = {match[0].partition("${")[0] for text in texts for match in _ADDRESS.finditer(text)}
    # Commas and brackets may separate swept values, or be part of a name.
    found |= {part for one in found for part in one.split(",")}
    found |= {one.rstrip(")]}") for one in found}
    if found:
        known = _known()
        os.environ[VARIABLE] = json.dumps({**known, "named": sorted({*known["named"], *map(public, found)})})


def check_named(texts: Iterable[str]) -> None:
    """Check that the user has named the addresses among some settings.

    Raises:
        UsageError: one was not named.
    """
    for text in filter(is_remote, texts):
        shown = public(text)
        if not is_named(shown):
            place = "/".join(shown.split("/")[:3])
            raise UsageError(
                f"{shown} stands in a file, and may be a stranger's: it is not read unasked"
                f"\n  expected: the address on the command line, or its beginning in the environment: {ALLOWED}={place}"
            )


def is_named(address: str) -> bool:
    """Whether the user has named an address without secrets, or its beginning, so that it may be read or written."""
    allowed = re.split(r"[\s,]+", os.environ.get(ALLOWED, "").strip())
    begins = any(f"{address}/".startswith(f"{one.rstrip('/')}/") for one in allowed if one)
    return begins or address in _known()["named"]


def _known() -> dict[str, Any]:
    return {"named": [], "whole": {}, **json.loads(os.environ.get(VARIABLE, "{}"))}
