"""Writes the tables of docs/lightning.md: what callbacks, loggers, profilers and trainer arguments do here."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from mlefw.configuration.lightning_doors import CALLBACKS, LOGGERS, PROFILERS  # noqa: E402
from mlefw.configuration.trainer_arguments import ARGUMENTS  # noqa: E402

PAGE = ROOT / "docs" / "lightning.md"
_STATES = {"open": "works", "shut": "refused", "base": "to inherit from"}


def _row(name: str, state: str, words: str) -> str:
    return f"| `{name}` | {state} | {words.removeprefix('expected ')} |"


def tables() -> dict[str, list[str]]:
    """The rows of each table by the title above it, in alphabetical order."""
    doors = {"Callbacks": CALLBACKS, "Loggers": LOGGERS, "Profilers": PROFILERS}
    found = {
        title: [_row(name, _STATES[door.state], door.words) for name, door in sorted(members.items())]
        for title, members in doors.items()
    }
    arguments = sorted(ARGUMENTS.items())
    found["Arguments of the trainer"] = [
        _row(name, "works" if one.is_open else "refused", one.words) for name, one in arguments
    ]
    return found


def main() -> None:
    """Replace the rows below each title."""
    text = PAGE.read_text(encoding="utf-8")
    for title, rows in tables().items():
        pattern = rf"(## {title}\n(?:(?!\n## ).|\n)*?\| --- \| --- \| --- \|\n)(?:\|.*\n)*"
        text = re.sub(pattern, lambda found, rows=rows: found[1] + "".join(f"{row}\n" for row in rows), text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
