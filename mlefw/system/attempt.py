"""What a run can do without: computed where it can be, left out with its reason where it cannot."""

from collections.abc import Callable
from typing import TypeVar

from mlefw.errors import MlefwError, StorageError
from mlefw.system import origin
from mlefw.system.warning import warn

T = TypeVar("T")
D = TypeVar("D")


def attempt(what: str, compute: Callable[[], T], instead: D) -> T | D:
    """The outcome of a computation, or what stands in its place, with a warning that says what is left out and why.

    Training is the costly part of a run: no figure that follows it may take it away. Only a disk that takes no more
    ends the run, since then nothing else can be kept either.

    Args:
        what: the name of the figure, as the warning begins.
        compute: what may fail.
        instead: what the caller goes on with.

    Raises:
        StorageError: a file could not be written.
    """
    try:
        return compute()
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever ails a figure, the run does not depend on it
        where = origin.place(error)
        warn(f"{what} left out: {reason(error)}" + (f" ({where})" if where else ""))
        return instead


def reason(error: BaseException) -> str:
    """Why a computation failed, in one line; the kind of error where its message alone does not say."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "there is not enough memory for it"
    lines = str(error).strip().splitlines()
    if isinstance(error, MlefwError) and lines:
        return lines[0]
    name = type(error).__name__.removeprefix("_")
    return f"{name}: {lines[0][:300]}" if lines else name
