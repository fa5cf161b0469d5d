"""Writes a frame as CSV, LaTeX, Markdown or Parquet."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from mlefw.errors import UsageError
from mlefw.system.atomic import write_atomically, write_text
from mlefw.system.inert_text import escaped, spreadsheet_cell
from mlefw.system.local_path import local_path

Frame = Mapping[str, Sequence[Any]]
"""Columns by name, of one length; None where a value is missing."""

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_MINUS = re.compile(r"^-(?=[\d.i])")


def check_export(path: Path, setting: str) -> None:
    """Refuse, before anything is computed, a file that cannot be written.

    Raises:
        UsageError: it exists, has an unknown suffix, or its folder is not there.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"{setting}={path}: expected a file that ends in {', '.join(_WRITERS)}")
    if local_path(path, setting).exists():
        raise UsageError(f"{setting}={path} exists: expected a new file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{setting}={path}: there is no directory {path.absolute().parent}")


def export(frame: Frame, path: Path) -> None:
    """Write a frame in the format of the file's suffix; a missing value is an empty cell.

    CSV has 17 significant digits, which give back every number; LaTeX and Markdown have 6.
    """
    _WRITERS[path.suffix](frame, path)


def as_csv(frame: Frame) -> str:
    """The frame as CSV; text is neither a formula to a spreadsheet nor a control sequence to a terminal."""

    def cell(value: Any) -> str:
        if isinstance(value, str):
            text = spreadsheet_cell(value)
            return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text
        return _plain(value, ".17g")

    return "".join(",".join(line) + "\n" for line in [list(map(cell, frame)), *_lines(frame, cell)])


def as_latex(frame: Frame) -> str:
    """The frame as a `tabular` of LaTeX that needs no package; text is escaped."""

    def text(value: str) -> str:
        return "".join(_LATEX.get(sign) or (f"\\{sign}" if sign in "_%&#${}" else sign) for sign in escaped(value))

    def cell(value: Any) -> str:
        return text(value) if isinstance(value, str) else _MINUS.sub("$-$", _plain(value, ".6g"))

    head = " & ".join(text(name) for name in frame)
    body = "".join(" & ".join(line) + " \\\\\n" for line in _lines(frame, cell))
    rule = "\\hline\n"
    columns = "".join("r" if _is_number(values) else "l" for values in frame.values())
    return f"\\begin{{tabular}}{{{columns}}}\n{rule}{head} \\\\\n{rule}{body}{rule}\\end{{tabular}}\n"


def as_markdown(frame: Frame) -> str:
    """The frame as a table of Markdown; text is escaped."""

    def text(value: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", escaped(value).replace("\n", " "))

    def cell(value: Any) -> str:
        return text(value) if isinstance(value, str) else _plain(value, ".6g")

    head = [text(name) for name in frame]
    sides = ["---:" if _is_number(values) else ":---" for values in frame.values()]
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, sides, *_lines(frame, cell)])


def _write_parquet(frame: Frame, path: Path) -> None:
    table = pa.table({name: _column(values) for name, values in frame.items()})
    write_atomically(path, lambda file: parquet.write_table(table, file))


def _column(values: Sequence[Any]) -> pa.Array:
    """A column; one of numbers, or without any value, is of 64-bit floats."""
    is_text = any(isinstance(value, str | bool) for value in values)
    return pa.array(values) if is_text else pa.array(values, pa.float64())


def _lines(frame: Frame, cell: Callable[[Any], str]) -> list[list[str]]:
    return [[cell(value) for value in line] for line in zip(*frame.values(), strict=True)]


def _plain(value: Any, digits: str) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return f"{float(value):{digits}}"


def _is_number(values: Sequence[Any]) -> bool:
    return not any(isinstance(value, str | bool) for value in values)


_WRITERS: Mapping[str, Callable[[Frame, Path], None]] = {
    ".csv": lambda frame, path: write_text(path, as_csv(frame)),
    ".tex": lambda frame, path: write_text(path, as_latex(frame)),
    ".md": lambda frame, path: write_text(path, as_markdown(frame)),
    ".parquet": _write_parquet,
}
