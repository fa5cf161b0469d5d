"""A line of the terminal that shows the progress of an exact estimate."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlefw.baseline.work import Watch


@contextmanager
def progress_line(name: str) -> Iterator[Watch]:
    """A function for progress messages of a solver: lines that stay, and on a terminal one that is overwritten.

    Args:
        name: name of the estimate.
    """
    shown = False

    def watch(text: str, passing: bool) -> None:
        nonlocal shown
        if not passing:
            # "linear MAP on 7,850 coefficients: …" reads as one sentence.
            sys.stderr.write(f"mlefw: {name}{'' if text.startswith('on ') else ':'} {text}\n")
            sys.stderr.flush()
        elif sys.stderr.isatty():
            shown = True
            sys.stderr.write(f"\r\x1b[2Kmlefw: {name}: {text}")
            sys.stderr.flush()

    try:
        yield watch
    finally:
        if shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
