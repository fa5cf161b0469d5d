"""What a conformance check is, and the error that says which rules a part breaks."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mlefw.errors import UsageError

C = TypeVar("C")

Check = Callable[[C], Iterable[str]]
"""Looks at a case, which is a part and what it is tried with; yields a sentence for each violation of its one rule."""

_MOST = 3
"""Violations of one rule that are named: more of them say nothing new."""


class ConformanceError(UsageError, AssertionError):
    """A part breaks a rule of its kind; the message names the part, the rules, and what was found in place of what."""


def name_of(part: object) -> str:
    """The class of a part, with its module."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def violations(case: C, checks: Iterable[Check[C]]) -> list[str]:
    """What breaks the rules, each sentence after the name of its rule.

    An error that a check raises passes on, unless a rule was broken before, which then explains it.
    """
    broken = list[str]()
    for check in checks:
        try:
            broken += [f"{check.__name__}: {sentence}" for sentence in list(check(case))[:_MOST]]
        except Exception as error:
            if not broken:
                raise
            return [*broken, f"{check.__name__}: could not be tried then ({type(error).__name__}: {error})"]
    return broken


def hold(part: object, case: C, checks: Sequence[Check[C]]) -> None:
    """Run all checks over a case.

    Raises:
        ConformanceError: naming every rule that is broken.
    """
    broken = violations(case, checks)
    if broken:
        raise ConformanceError("\n  ".join([f"{name_of(part)} breaks the rules of its kind", *broken]))
