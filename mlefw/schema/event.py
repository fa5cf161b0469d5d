"""Survival data: whether the event of a time was observed, or the time is censored."""

import warnings
from dataclasses import dataclass

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.levels import are_text, check_whole, codes, factorize, written
from mlefw.reading.table import Table

_CLEAR = ({"0", "1"}, {"False", "True"}, {"1", "2"})
"""Pairs of codes of which the larger one means the event: no and yes, and those of R's survival package."""


@dataclass(frozen=True)
class Event:
    """A column in which `code` means that the event was observed, and each of `others` that the row is censored."""

    name: str
    code: str
    others: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the column has to be read as text."""
        return are_text((self.code, *self.others))

    def observed(self, table: Table, required: bool = True) -> np.ndarray:
        """1 where the event was observed, 0 where the row is censored, NaN where the cell is missing, (n,).

        Raises:
            UsageError: an unknown value, or with `required` a missing one.
        """
        if required:
            check_whole(table, self.name, "data.event")
        known = np.full(table.num_rows, np.nan)
        if self.name in table.columns:
            present, index = table.present(self.name)
            known[index] = codes(present, self.name, (self.code, *self.others), "data.event") == 0
        return known


def learn_event(table: Table, name: str, code: str | float | bool | None) -> Event:
    """The event of a column: the value `code`, by default the larger of 0 and 1, of false and true, or of 1 and 2.

    Raises:
        UsageError: it is not clear which value is the event, or no row has `code`.
    """
    check_whole(table, name, "data.event")
    found, _ = factorize(table.columns[name])
    shown = ", ".join(map(repr, found[:5])) + (", …" if len(found) > 5 else "")
    if code is not None:
        event = written(code)
        if event not in found:
            raise UsageError(
                f"data.event_code={event}: column {name!r} (data.event) holds {shown}\n  expected: one of them"
            )
        return Event(name, event, tuple(level for level in found if level != event))
    clear = next((sorted(known) for known in _CLEAR if set(found) <= known), None)
    if clear is None:
        raise UsageError(
            f"{table.origin}: column {name!r} (data.event) holds {shown}, and which of them is the event is not clear"
            "\n  expected: 1 or true where it was observed and 0 or false where the row is censored; or the value that"
            f" says so: data.event_code={found[-1]}"
        )
    if clear[1] == "2":
        message = f"{table.origin}: column {name!r} (data.event): 2 is taken for the event, and 1 for a censored row"
        warnings.warn(f"{message}, as R has it; data.event_code=1 turns it round", UserWarning, stacklevel=2)
    return Event(name, clear[1], (clear[0],))


def as_bounds(time: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Times (n,) as bounds (n, 2): equal where the event was observed, no upper one (NaN) where it is censored."""
    return np.stack([np.where(np.isnan(observed), np.nan, time), np.where(observed == 1, time, np.nan)], 1)
