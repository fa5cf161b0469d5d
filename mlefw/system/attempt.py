"""Computations that may fail without ending a run: a warning says what is left out and why."""

from collections.abc import Callable
from typing import TypeVar

from mlefw.errors import MlefwError, StorageError
from mlefw.system import error_origin
from mlefw.system.warning import warn

T = TypeVar("T")
D = TypeVar("D")


def attempt(what: str, compute: Callable[[], T], fallback: D) -> T | D:
    """The result of `compute`; where it fails, a warning and `fallback`.

    Training is the costly part of a run, and must not be lost because a figure computed afterwards fails. Only a
    failure to write files ends the run: then nothing else could be stored either.

    Args:
        what: name of the result, with which the warning begins.
        compute: the computation.
        fallback: returned where `compute` raises an error.

    Raises:
        StorageError: a file could not be written.
    """
    try:
        return compute()
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - code of plugins and libraries, which may raise anything
        where = error_origin.plugin_location(error)
        warn(f"{what} left out: {reason(error)}" + (f" ({where})" if where else ""))
        return fallback


def reason(error: BaseException) -> str:
    """Why a computation failed, in one line of at most some 300 characters, with the error's type unless it is ours."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "there is not enough memory for it"
    lines = str(error).strip().splitlines()
    if isinstance(error, MlefwError) and lines:
        return lines[0]
    name = type(error).__name__.removeprefix("_")
    return f"{name}: {lines[0][:300]}" if lines else name
