"""How the cells of a table are read, as the roles of its columns and the settings of its source have it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlefw.reading.notation import NumberFormat

Missing = Literal["error", "drop", "impute"]


@dataclass(frozen=True)
class Cells:
    """How the cells of a table are read.

    Attributes:
        text: columns that are categories even where they hold numbers.
        numeric: columns that have to hold numbers.
        identifier: a column whose integers are kept as they are.
        missing: whether rows with missing cells are an error, or dropped with a warning.
        lenient: columns whose missing cells are kept as holes of the table, whatever `missing` says.
        open: of columns of bounds the infinity that says that there is no bound, as an empty cell does.
        time: a column of numbers or dates, which become whole numbers in the unit of their type.
        form: how numbers are written in text.
        on_purpose: whether the source tells text from numbers by itself.
    """

    text: Collection[str] = ()
    numeric: Collection[str] = ()
    identifier: str | None = None
    missing: Missing = "error"
    lenient: Collection[str] = ()
    open: Mapping[str, float] = field(default_factory=dict)
    time: str | None = None
    form: NumberFormat = field(default_factory=NumberFormat)
    on_purpose: bool = True
