"""Printing to the terminal with colours, and without obeying control characters in the text."""

import os
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlefw.system.inert_text import escaped


class Terminal(Console):
    """A console that escapes control characters in what it prints, and prints no more once its reader has gone."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print, their text escaped; control codes of rich itself remain."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))

    def on_broken_pipe(self) -> None:
        """Print no more: a reader that went away (`mlefw … | head`) is no failure of the run."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False) -> Console:
    """A console on standard output or standard error, 140 columns wide where that is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Terminal(file=stream, highlight=False, width=None if stream.isatty() else 140)
