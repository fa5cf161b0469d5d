"""Text that came with data, made harmless where it is shown: to a terminal and to a spreadsheet it is text alone."""

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys rather than shows: control characters of both sets, and those that turn the direction of text.

Tab and line feed may stay. Half a character of two cannot be written at all.
"""


def shown(text: str) -> str:
    """The text with control characters written out: an escape is x1b behind a backslash."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def cell(text: str) -> str:
    """The same as a cell of a CSV file: what a spreadsheet would take for a formula gets an apostrophe."""
    text = shown(text)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t")) else text
