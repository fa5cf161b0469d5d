"""Warnings for the user: on standard error at once, and in the summary of the run."""

import warnings

_collected: list[str] = []


def warn(message: str) -> None:
    """Say something the user should know that is not an error."""
    warnings.warn(message, UserWarning, stacklevel=2)


def collect(message: str) -> None:
    """Note a warning that was shown; each is kept once."""
    if message not in _collected:
        _collected.append(message)


def collected() -> list[str]:
    """The warnings of this run so far."""
    return list(_collected)


def clear() -> None:
    """Forget them: a new run starts."""
    _collected.clear()
