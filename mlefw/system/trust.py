"""The packages whose code may run, because a person has admitted them: everything else in a configuration is data."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

_NAMES = "MLEFW_PLUGINS"
"""The variable that jobs in other processes inherit the names by."""

_also: dict[str, None] = {}


def named() -> tuple[str, ...]:
    """The packages of `--plugin`, which are in the environment, so that all processes of a command have them."""
    return tuple(name for name in os.environ.get(_NAMES, "").split(",") if name)


@cache
def installed() -> tuple[str, ...]:
    """The packages that installed entry points admit."""
    return tuple(entry.value.split(".")[0] for entry in entry_points(group="mlefw.configs"))


def trusted() -> tuple[str, ...]:
    """All packages that were admitted in this process."""
    return tuple(dict.fromkeys((*named(), *installed(), *_also)))


def inherit(packages: Sequence[str]) -> None:
    """Admit packages in this process and in those that it starts."""
    os.environ[_NAMES] = ",".join(dict.fromkeys(packages))


def trust(packages: Sequence[str]) -> None:
    """Admit packages in this process alone."""
    _also.update(dict.fromkeys(packages))
