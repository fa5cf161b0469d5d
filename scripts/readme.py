"""Renews what the first page shows of a run: the printed table between its markers, and the picture of the training.

A fence behind `<!-- printed by: mlefw … -->` holds what that command prints, less the lines on where the run is.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURES = {"plots/learning_curves.png": ROOT / "docs" / "learning_curves.png"}
"""Files of the run, and where the pages have them."""

MARKED = re.compile(r"(<!-- printed by: mlefw ([^\n]*?) -->\n\n```\n)(.*?)(^```$)", re.M | re.S)


def printed(command: str, run_dir: Path) -> str:
    """What a command prints on standard output, with its run in `run_dir`.

    Raises:
        CalledProcessError: it fails.
    """
    program = [sys.executable, "-m", "mlefw.cli", *command.split(), f"run_dir={run_dir}"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment, cwd=run_dir.parent)
    kept = [line for line in done.stdout.splitlines() if not line.startswith(("run: ", "look: "))]
    # Sentences of the verdict stand on lines of their own, to fit the page.
    return "\n".join(kept).replace(". ", ".\n") + "\n"


def renewed(text: str, folder: Path) -> str:
    """The page with what its commands print today; their runs are in `folder`."""
    found = MARKED.sub(lambda one: f"{one[1]}{printed(one[2], folder / 'run')}{one[4]}", text)
    for file, picture in PICTURES.items():
        picture.write_bytes((folder / "run" / file).read_bytes())
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        README.write_text(renewed(README.read_text(encoding="utf-8"), Path(place)), encoding="utf-8")
    print(f"written: {README}, {', '.join(map(str, PICTURES.values()))}")
