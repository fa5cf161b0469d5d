"""`Findings`, the result of an experiment: tables, numbers, pictures, and a conclusion in words."""

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
"""A cell of a table; None is shown as a dash."""


@dataclass(frozen=True)
class Grid:
    """A table: a title, column names (the first is that of the row names), and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def shown(self) -> Group:
        """The table for a terminal."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column, name in enumerate(self.columns):
            table.add_column(Text(name), justify="right" if column else "left")
        for row in self.rows:
            table.add_row(*(Text(cell_text(cell)) for cell in row))
        return Group(Text(self.title, style="bold"), table)

    def plain(self) -> Json:
        """The table for `summary.json`."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}


@dataclass(frozen=True)
class Findings:
    """The result of an experiment.

    Attributes:
        title: what was done, in one line.
        tables: tables of measured and predicted values.
        verdict: the conclusion, in one or a few sentences.
        values: numbers for tests and other programs by name; None if one is not defined.
        pictures: pictures by name of their file.
    """

    title: str
    tables: Sequence[Grid]
    verdict: str
    values: Mapping[str, float | None]
    pictures: Mapping[str, Figure] = field(default_factory=dict)


def cell_text(cell: Cell) -> str:
    """The text of a cell: floats in at most five digits, integers in full."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return str(cell)
    return number(cell)
