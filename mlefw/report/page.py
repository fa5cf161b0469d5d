"""The parts of an HTML report, and their rendering by a template that escapes every value."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_ROWS = 200
"""Most rows of a table; the others are in the file that it names."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, and cells as text."""

    name: str
    cells: Sequence[str]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first `num_text` cells of a row are text, the others numbers."""

    header: Sequence[str]
    all_rows: Sequence[Row]
    title: str = ""
    num_text: int = 0
    file: str = ""

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are shown."""
        return self.all_rows[:MAX_ROWS]

    @property
    def left_out(self) -> int:
        """Number of rows that are not shown."""
        return len(self.all_rows) - len(self.rows)


@dataclass(frozen=True)
class Picture:
    """A PNG file, its conclusion in words, and what it shows."""

    content: bytes
    conclusion: str
    caption: str

    @property
    def base64(self) -> str:
        """The content of the file in base64."""
        return base64.b64encode(self.content).decode()

    @property
    def width(self) -> int:
        """Width in pixels, from the header of the file."""
        return int.from_bytes(self.content[16:20], "big")

    @property
    def height(self) -> int:
        """Height in pixels, from the header of the file."""
        return int.from_bytes(self.content[20:24], "big")


@dataclass(frozen=True)
class Section:
    """A section with tables, pictures, or text that can be unfolded."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    text: str = ""
    note: str = ""
    open: bool = False


@dataclass(frozen=True)
class Page:
    """A report, which begins with its verdict."""

    title: str
    verdict: str
    about: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    footer: str = ""

    def html(self) -> str:
        """The page as one self-contained file, without links to a network."""
        parts = ("title", "verdict", "about", "sections", "warnings", "footer")
        return rendered("page.html", **{name: getattr(self, name) for name in parts})


def rendered(template: str, **parts: Any) -> str:
    """The HTML of a template of this folder, with every value escaped."""
    # Imported here, because a run without a report does not need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    room = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True)
    return room.get_template(template).render(parts)
