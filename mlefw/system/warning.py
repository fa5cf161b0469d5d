"""Warnings for the user: shown on standard error at once, and collected for the summary of the run."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_collected: list[str] = []

_MAX_WARNINGS = 100
"""How many warnings of a run are shown and collected."""

_MAX_LENGTH = 2000
"""Characters to which a message is shortened: it may quote data of any length."""


def warn(message: str) -> None:
    """Warn the user."""
    warnings.warn(shortened(message), UserWarning, stacklevel=2)


def shortened(message: str, longest: int = _MAX_LENGTH) -> str:
    """The message; where it has more than `longest` characters, its beginning and end, and how many are left out."""
    if len(message) <= longest:
        return message
    end = longest // 4
    start = longest - end
    return f"{message[:start]} … ({len(message) - longest} characters left out) … {message[-end:]}"


def collect(message: str) -> bool:
    """Add a warning to those of the run; whether it is to be shown.

    A warning counts once, and the first hundred warnings of a run alone.
    """
    message = shortened(message)
    if message in _collected or len(_collected) >= _MAX_WARNINGS:
        return False
    _collected.append(message if len(_collected) < _MAX_WARNINGS - 1 else f"{message}\n(further warnings are left out)")
    return True


def collected() -> list[str]:
    """The warnings of the run so far."""
    return list(_collected)


@contextmanager
def separate_run(known: list[str] | None = None) -> Iterator[None]:
    """Collect the warnings of the block as those of another run, apart from those of the run around it.

    `known`: warnings of that other run from earlier blocks, to which those of this block are added.
    """
    before, known = collected(), [] if known is None else known
    _collected[:] = known
    try:
        yield
    finally:
        known[:], _collected[:] = collected(), before


def clear() -> None:
    """Remove the collected warnings, since a new run starts."""
    _collected.clear()
