"""Packages whose code a configuration may run, because the user named or installed them as plugins."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

_VARIABLE = "MLEFW_PLUGINS"
"""Environment variable with the names, from which processes started by this one inherit them."""

_in_process: dict[str, None] = {}
"""Names trusted in this process alone; a dict, because a set has no order."""


def named_by_user() -> tuple[str, ...]:
    """The packages named by `--plugin`, in this process or the one that started it."""
    return tuple(name for name in os.environ.get(_VARIABLE, "").split(",") if name)


@cache
def installed() -> tuple[str, ...]:
    """The packages that installed distributions declare as plugins, by the entry point group `mlefw.configs`."""
    return tuple(entry.value.split(".")[0] for entry in entry_points(group="mlefw.configs"))


def trusted() -> tuple[str, ...]:
    """All packages that are trusted in this process, each once."""
    return tuple(dict.fromkeys((*named_by_user(), *installed(), *_in_process)))


def trust_everywhere(packages: Sequence[str]) -> None:
    """Trust packages in this process and in those that it starts, instead of those trusted so before."""
    os.environ[_VARIABLE] = ",".join(dict.fromkeys(packages))


def trust(packages: Sequence[str]) -> None:
    """Trust packages in this process alone, beside those trusted already."""
    _in_process.update(dict.fromkeys(packages))
