"""Warnings for the user: on standard error at once, and in the summary of the run."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_collected: list[str] = []

_MOST = 100
"""Warnings of a run; what more there is to warn of is no news."""

_LONGEST = 2000
"""Characters of a message, which may quote data of any length."""


def warn(message: str) -> None:
    """Say something the user should know that is not an error."""
    warnings.warn(shortened(message), UserWarning, stacklevel=2)


def shortened(message: str, longest: int = _LONGEST) -> str:
    """A message of bounded length: its beginning and its end, and how much is left out between them."""
    if len(message) <= longest:
        return message
    end = longest // 4
    start = longest - end
    return f"{message[:start]} … ({len(message) - longest} characters left out) … {message[-end:]}"


def collect(message: str) -> bool:
    """Note a warning, and say whether to show it: each one once, and so many in all."""
    message = shortened(message)
    if message in _collected or len(_collected) >= _MOST:
        return False
    _collected.append(message if len(_collected) < _MOST - 1 else f"{message}\n(further warnings are left out)")
    return True


def collected() -> list[str]:
    """The warnings of this run so far."""
    return list(_collected)


@contextmanager
def apart(known: list[str] | None = None) -> Iterator[None]:
    """Let what is warned of while the block runs be that of a run of its own, and not of the run around it.

    `known`: the warnings of that run from blocks before; those of this one are added to it.
    """
    before, known = collected(), [] if known is None else known
    _collected[:] = known
    try:
        yield
    finally:
        known[:], _collected[:] = collected(), before


def clear() -> None:
    """Forget them: a new run starts."""
    _collected.clear()
