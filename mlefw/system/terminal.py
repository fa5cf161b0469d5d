"""The terminal: what is printed there has its own colours, and no text in it is obeyed."""

import os
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlefw.system.inert_text import shown


class Terminal(Console):
    """A console to which text from data is text alone, and which falls silent where its reader goes away."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is shown, with its own styles and no others."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))

    def on_broken_pipe(self) -> None:
        """Print no more: the reader went away, which is no failure of the run."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False) -> Console:
    """A console that writes plain ASCII-safe text where there is no UTF-8 terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Terminal(file=stream, highlight=False, width=None if stream.isatty() else 140)
