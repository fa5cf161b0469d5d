"""Settings that name files and folders: a path means what it says, whatever signs it has."""

import re
from pathlib import Path

_NAMES = re.compile(r"(?:\w+\.)*(?:run|run_dir|resume|output|plots|cache|\w*path)")
_WORDS = ("", "null", "true", "false")
_SWEEPS = re.compile(r"[,()\[\]]")


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back, with nothing in it that would be replaced."""
    text = escaped(text)
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), text) + "'"


def escaped(text: str) -> str:
    """A text as a value of a configuration whose references to other settings are still to be replaced."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def opened(override: str, sweeps: bool = False) -> str:
    """The override with a path in quotes; any other override as it is.

    What is in quotes already stays; so do references to other settings, and in a sweep the signs that list values,
    unless there is a file of that very name.
    """
    key, sign, text = override.partition("=")
    if not sign or text.lower() in _WORDS or not _NAMES.fullmatch(key.lstrip("+")):
        return override
    has_meaning = _is_quoted(text) or "${" in text or (sweeps and _SWEEPS.search(text))
    is_there = _exists(text) or any("${" in str(folder) and _exists(str(folder)) for folder in Path(text).parents)
    return override if has_meaning and not is_there else f"{key}={quoted(text)}"


def literal(text: str) -> str:
    """The path that a person has written, perhaps in quotes."""
    if not _is_quoted(text) or _exists(text):
        return text
    return re.sub(r"(\\*)\\(['\"])", lambda found: found[1][::2] + found[2], text[1:-1])


def several(text: str) -> list[str]:
    """The paths of a list such as `a,b` or `[a,b]`; a comma may be in a name, too, where there is such a file."""
    parts = text.split(",")
    if text.startswith("[") and text.endswith("]") and not _length(parts):
        parts = text[1:-1].split(",")
    found: list[str] = []
    while parts:
        # What there is not will be told to be missing.
        end = _length(parts) or 1
        found.append(literal(",".join(parts[:end]).strip()))
        parts = parts[end:]
    return [path for path in found if path]


def _length(parts: list[str]) -> int:
    """Of how many parts the longest first name consists that there is; 0 where there is none."""
    return next((end for end in range(len(parts), 0, -1) if _exists(literal(",".join(parts[:end])))), 0)


def _is_quoted(text: str) -> bool:
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""


def _exists(text: str) -> bool:
    try:
        Path(text).lstat()
    except (OSError, ValueError):
        return False
    return True
