"""Checks of the columns of a table: required names, constant features, copies."""

import hashlib
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.table import Table


def require(names: Iterable[str], present: Iterable[str], origin: str, setting: str) -> None:
    """Check that all names are present; `setting` is where the user wrote them.

    Raises:
        UsageError: a name is not present; the message suggests the nearest one.
    """
    require_each([(name, setting) for name in names], present, origin)


def require_each(named: Iterable[tuple[str, str]], present: Iterable[str], origin: str) -> None:
    """Check that all names are present, each of which comes with the setting where the user wrote it.

    Raises:
        UsageError: a name is not present; the message suggests the nearest ones.
    """
    present = dict.fromkeys(present)
    lines = []
    for name, setting in named:
        if name not in present:
            near = " or ".join(map(repr, get_close_matches(name, present, n=2)))
            lines.append(f"  {name!r} ({setting})" + (f": did you mean {near}?" if near else ""))
    if lines:
        more = [f"  and {len(lines) - 8} more"] if len(lines) > 8 else []
        raise UsageError("\n".join([f"{origin} lacks these columns", *lines[:8], *more, f"  it has {shown(present)}"]))


def shown(names: Iterable[str], limit: int = 10) -> str:
    """The first names in quotes, and the number of the others, for messages."""
    names = list(names)
    return ", ".join(map(repr, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def warn_of_constants(table: Table, names: Iterable[str]) -> None:
    """Warn of features that are constant over all rows."""
    columns = ((name, table.columns[name]) for name in names)
    constant = [name for name, column in columns if (column == column[0]).all()]
    if constant:
        warnings.warn(f"{table.origin}: constant features {shown(constant)}", UserWarning, stacklevel=2)


def warn_of_copies(table: Table, names: Iterable[str]) -> None:
    """Warn of features that are equal in every row, of which only the sum of coefficients is estimable."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        column = table.columns[name]
        content: Any = np.ascontiguousarray(column) if column.dtype.kind in "fiub" else repr(column.tolist()).encode()
        groups.setdefault(hashlib.blake2b(content).digest(), []).append(name)
    copies = [
        " = ".join(map(repr, names))
        for names in groups.values()
        if len(names) > 1 and not (table.columns[names[0]] == table.columns[names[0]][0]).all()
    ]
    if copies:
        more = f" and {len(copies) - 8} more" if len(copies) > 8 else ""
        warnings.warn(
            f"{table.origin}: features that are equal in every row: {', '.join(copies[:8])}{more}",
            UserWarning,
            stacklevel=2,
        )
