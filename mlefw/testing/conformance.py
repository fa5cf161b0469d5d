"""Runs conformance checks, and raises an error that names the rules that a part breaks."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mlefw.errors import UsageError

C = TypeVar("C")

Check = Callable[[C], Iterable[str]]
"""Checks one rule on a case, a part with inputs to try it with; yields a sentence for each violation."""

_MOST = 3
"""Most violations of one rule in a message."""


class ConformanceError(UsageError, AssertionError):
    """A part breaks rules of its kind; the message names the part, the rules, and what was found and expected."""


def name_of(part: object) -> str:
    """Module and class of a part."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def violations(case: C, checks: Iterable[Check[C]]) -> list[str]:
    """The violations of rules, each a sentence after the name of its rule.

    An error that a check raises is passed on, unless a rule was broken before, which is then its likely cause.
    """
    broken = list[str]()
    for check in checks:
        try:
            broken += [f"{check.__name__}: {sentence}" for sentence in list(check(case))[:_MOST]]
        except Exception as error:
            if not broken:
                raise
            return [*broken, f"{check.__name__}: could not be checked after that ({type(error).__name__}: {error})"]
    return broken


def hold(part: object, case: C, checks: Sequence[Check[C]]) -> None:
    """Run all checks on a case of a part.

    Raises:
        ConformanceError: some rules are broken; the message names all of them.
    """
    broken = violations(case, checks)
    if broken:
        raise ConformanceError("\n  ".join([f"{name_of(part)} breaks the rules of its kind", *broken]))
