"""Writes constraints-lowest.txt: the lowest versions that pyproject.toml admits, for the tests to run with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints-lowest.txt"
INTRO = """\
# The lowest versions that pyproject.toml admits: CONSTRAINTS=constraints-lowest.txt ./scripts/setup test
# Written by `python scripts/lowest.py`.
"""


def text() -> str:
    """The file: a line for each direct dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = [re.match(r"([\w.-]+)>=([\w.]+)", requirement) for requirement in project["dependencies"]]
    return INTRO + "".join(f"{floor[1]}=={floor[2]}\n" for floor in floors if floor)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"written: {FILE}")
