"""What the suites of documents share: the code blocks of a page, and running a command line of one in this process."""

import re
import shlex
import warnings
from pathlib import Path

from conftest import ROOT

from mlefw.cli import run

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FEW = ("trainer.max_epochs=8", "logger=none", "report=false", "plots=false")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page: what stands behind the three backticks that open it, and its text."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """The words of each command line of a block that calls mlefw or python, less comments and `[any other setting]`."""
    lines = text.replace("\\\n", " ").splitlines()
    lines = [
        re.sub(r" \[[^]]* [^]]*\]| …|   #.*", "", line) for line in lines if line.startswith(("mlefw ", "python "))
    ]
    return [shlex.split(line) for line in lines]


def execute(command: str, *arguments: str) -> None:
    """Run a command of mlefw under the warning filters of a process of its own; a training for a few epochs."""
    given = {argument.partition("=")[0] for argument in arguments}
    few = [item for item in FEW if item.partition("=")[0] not in given] if command == "train" else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run([command, *arguments, *few]) == 0, (command, *arguments)
