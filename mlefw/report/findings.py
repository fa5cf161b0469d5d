"""What an experiment hands back: tables, figures by name, pictures, and its conclusion in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mlefw.system.atomic import Json
from mlefw.system.number_format import number

Cell = float | int | str | None
"""A dash stands for None."""


@dataclass(frozen=True)
class Grid:
    """A table: a title, column names (the first is that of the row names), and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def shown(self) -> Group:
        """As a terminal shows it."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column, name in enumerate(self.columns):
            table.add_column(Text(name), justify="right" if column else "left")
        for row in self.rows:
            table.add_row(*(Text(cell_text(cell)) for cell in row))
        return Group(Text(self.title, style="bold"), table)

    def plain(self) -> Json:
        """As `summary.json` holds it."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}


@dataclass(frozen=True)
class Findings:
    """The result of an experiment.

    Attributes:
        title: what was done, one line.
        tables: measured beside predicted.
        verdict: what follows, a sentence or a few.
        values: the numbers a test or another program reads; None where one is not defined.
        pictures: by name of their file.
    """

    title: str
    tables: Sequence[Grid]
    verdict: str
    values: Mapping[str, float | None]
    pictures: Mapping[str, Figure] = field(default_factory=dict)


def cell_text(cell: Cell) -> str:
    """A cell in at most five digits; whole numbers whole."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return str(cell)
    return number(cell)
