"""For the site of the documentation: in docstrings an asterisk belongs to a formula, as in (*batch, eta_dim)."""

import re
from typing import Any

import griffe

# What stands as it is: code, and the name that takes further arguments, at the start of its description.
AS_IT_IS = re.compile(r"(`[^`]*`|^ *\*{1,2}\w+:)", re.M)


class Formulas(griffe.Extension):
    """Takes the asterisks outside of backticks for what they are, rather than for signs of Markdown."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Escape those of every docstring of a package."""
        _escape(pkg)


def _escape(whole: Any) -> None:
    if whole.docstring is not None:
        parts = AS_IT_IS.split(whole.docstring.value)
        parts[::2] = [text.replace("*", r"\*") for text in parts[::2]]
        whole.docstring.value = "".join(parts)
    for member in whole.members.values():
        if not member.is_alias:
            _escape(member)
