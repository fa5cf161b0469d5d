"""Ranges of settings, from which the tables of ranges are built (`ranges`, `trainer_arguments`)."""

import math
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_LARGEST = sys.float_info.max


class Range(NamedTuple):
    """What a setting may be.

    Attributes:
        holds: whether a value is in the range.
        words: the range in words, which follow "expected" in a message; or a whole phrase that begins with "expected".
    """

    holds: Callable[[Any], bool]
    words: str


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of at most 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def number(low: float = 0.0, below: float = math.inf, above: bool = False) -> Range:
    """A finite number of at least `low`, or above it if `above`, and below `below`."""
    start = f"above {low:g}" if above else f"of at least {low:g}"
    words = f"a finite number {start}" + ("" if below == math.inf else f" and below {below:g}")
    return Range(lambda v: is_number(v) and (v > low if above else v >= low) and v < below, words)


def whole(low: int, also: tuple[int, ...] = ()) -> Range:
    """A whole number of at least `low`, or one of `also`."""
    words = "".join(f"{value} or " for value in also) + f"a whole number of at least {low}"
    return Range(lambda v: is_whole(v) and (v >= low or v in also), words)


def one_of(*values: Any) -> Range:
    """One of some values; True is not 1, as types are compared, too."""
    known = [(type(value), value) for value in values]
    words = " or ".join({None: "null", True: "true", False: "false"}.get(value, str(value)) for value in values)
    return Range(lambda v: (type(v), v) in known, words)


def either(*ranges: Range) -> Range:
    """The union of ranges."""
    return Range(lambda v: any(one.holds(v) for one in ranges), " or ".join(one.words for one in ranges))


def fixed(value: Any, instead: str) -> Range:
    """The default or null only, for a setting that has no effect in mlefw, or a misleading one.

    Args:
        value: the default.
        instead: what was expected, for the message.
    """
    allowed = one_of(value, None)
    return Range(allowed.holds, instead)


NULL = one_of(None)


def is_time(value: Any) -> bool:
    """Whether a value is a positive length of time, as text days:hours:minutes:seconds or as a mapping of units."""
    if isinstance(value, dict):
        known = {"days", "hours", "minutes", "seconds", "weeks"}
        return value.keys() <= known and all(map(is_number, value.values())) and sum(value.values()) > 0
    parts = re.fullmatch(r"(\d+):([01]?\d|2[0-3]):([0-5]?\d):([0-5]?\d)", value) if isinstance(value, str) else None
    return parts is not None and any(int(part) for part in parts.groups())
