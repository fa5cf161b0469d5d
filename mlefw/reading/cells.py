"""How the cells of a table are read, given the roles of its columns and the settings of its source."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlefw.reading.notation import NumberFormat

Missing = Literal["error", "drop", "impute"]
"""What happens to rows with missing cells: an error, dropped, or features filled in by the schema."""


@dataclass(frozen=True)
class Cells:
    """How the cells of a table are read.

    Attributes:
        text: columns that are categories even where they hold numbers.
        numeric: columns that have to hold numbers.
        identifier: a column whose integers are not converted to floats.
        missing: whether rows with missing cells are an error, or are dropped with a warning.
        lenient: columns whose missing cells are kept as holes of the table, regardless of `missing`.
        open: for each column of bounds, the infinity that means that there is no bound, like an empty cell.
        time: a column of numbers or dates, which become whole numbers in the unit of their type.
        days: columns whose dates become numbers of days.
        dated: columns whose dates are categories, or names of groups.
        form: how numbers are written in text.
        on_purpose: whether the source distinguishes text from numbers by type, as a Parquet file does.
    """

    text: Collection[str] = ()
    numeric: Collection[str] = ()
    identifier: str | None = None
    missing: Missing = "error"
    lenient: Collection[str] = ()
    open: Mapping[str, float] = field(default_factory=dict)
    time: str | None = None
    days: Collection[str] = ()
    dated: Collection[str] = ()
    form: NumberFormat = field(default_factory=NumberFormat)
    on_purpose: bool = True
