"""Settings that name files and folders: quoted, so that Hydra passes on characters such as `,` or `=` unchanged."""

import re
from collections.abc import Sequence
from pathlib import Path

from mlefw.system import address

_NAMES = re.compile(r"(?:\w+\.)*(?:run|run_dir|resume|output|plots|cache|download|table|glance|\w*path|tracking_uri)")
"""Keys of settings that hold a path."""
_FORMULA = re.compile(r"\+*(?:formula|head\.terms\.\w+|data\.terms\.\w+|baseline\.scales)=")
"""The beginning of an override whose value is a formula, or holds terms of one."""
TEXT = "prompt="
"""The beginning of an override whose value is text as it stands, quotes and commas included."""
_WORDS = ("", "null", "true", "false")
"""Values of such settings that are no path."""
_SWEEPS = re.compile(r"[,()\[\]]")


def quoted(text: str) -> str:
    """A text in single quotes, which Hydra's grammar and OmegaConf turn back into the text."""
    text = escaped(text)
    # Backslashes are doubled before a quote and at the end only: elsewhere Hydra's grammar takes them as they are.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), text) + "'"


def escaped(text: str) -> str:
    r"""A text as a value of an unresolved configuration: `${` becomes `\${`, which is no reference to a setting."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def with_quoted_path(override: str, sweeps: bool = False) -> str:
    """An override `key=path` with its path in quotes, and a `prompt` with its text; any other override unchanged.

    A path that is in quotes already, or refers to other settings, stays, unless there is a file of that very name.

    Args:
        override: of the command line.
        sweeps: whether commas and brackets separate swept values, and so are not part of a path.
    """
    key, sign, text = override.partition("=")
    if override.startswith(TEXT):
        return f"{key}={quoted(text)}"
    if not sign or text.lower() in _WORDS or not _NAMES.fullmatch(key.lstrip("+")):
        return override
    has_meaning = _is_quoted(text) or "${" in text or (sweeps and _SWEEPS.search(text))
    is_there = _exists(text) or any("${" in str(folder) and _exists(str(folder)) for folder in Path(text).parents)
    return override if has_meaning and not is_there else f"{key}={quoted(text)}"


def without_secrets(overrides: Sequence[str]) -> list[str]:
    """The overrides, in which addresses of files are without passwords and signatures; these are kept for reading.

    The addresses count as named by the user: they may be read.

    Raises:
        UsageError: two addresses differ in nothing else.
    """
    items = [item for item in overrides if _NAMES.fullmatch(item.partition("=")[0].lstrip("+"))]
    address.name(items)
    # What refers to other settings is shortened when the reference is replaced (`read.resolve`).
    items = [item for item in items if "${" not in item]
    shortened = dict(zip(items, address.withheld(items), strict=True))
    return [shortened.get(item, item) for item in overrides]


def is_formula(override: str) -> bool:
    """Whether an override sets a formula."""
    return _FORMULA.match(override) is not None


def with_quoted_formula(override: str) -> str:
    """An override of a formula with its text in quotes, unless it has them already; any other override unchanged."""
    key, _, text = override.partition("=")
    if not is_formula(override) or text.lower() in _WORDS or _is_quoted(text):
        return override
    return f"{key}={quoted(text)}"


def literal(text: str) -> str:
    """The path that is meant by a value of the command line: without its quotes, unless a file has them in its name."""
    if not _is_quoted(text) or _exists(text):
        return text
    return re.sub(r"(\\*)\\(['\"])", lambda found: found[1][::2] + found[2], text[1:-1])


def several(text: str) -> list[str]:
    """The paths of a list such as `a,b` or `[a,b]`; of names with commas the longest that exists counts."""
    parts = text.split(",")
    if text.startswith("[") and text.endswith("]") and not _length(parts):
        parts = text[1:-1].split(",")
    found: list[str] = []
    while parts:
        # A path that does not exist is kept: its reader reports it as missing.
        end = _length(parts) or 1
        found.append(literal(",".join(parts[:end]).strip()))
        parts = parts[end:]
    return [path for path in found if path]


def _length(parts: list[str]) -> int:
    """How many of the first parts, joined by commas, make the longest path that exists; 0 if none does."""
    return next((end for end in range(len(parts), 0, -1) if _exists(literal(",".join(parts[:end])))), 0)


def _is_quoted(text: str) -> bool:
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""


def _exists(text: str) -> bool:
    try:
        Path(text).lstat()
    except (OSError, ValueError):
        return False
    return True
