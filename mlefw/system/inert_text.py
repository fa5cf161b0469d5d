"""Text from data made harmless: a terminal must not obey it, and a spreadsheet must not compute it."""

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that change the direction of text, and surrogates, which UTF-8 cannot encode.

Tab and line feed are not among them.
"""


def escaped(text: str) -> str:
    """The text with control characters written as Python escapes: ESC as a backslash and `x1b`."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def spreadsheet_cell(text: str) -> str:
    """Text for a cell of a CSV file: escaped, and behind an apostrophe where a spreadsheet would see a formula."""
    text = escaped(text)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t")) else text
