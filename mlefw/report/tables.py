"""Tables of runs and of coefficients for the terminal and TensorBoard."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mlefw.report.observation import nats, sizes
from mlefw.report.references import exact_names, reference_name
from mlefw.report.sentences import model_name
from mlefw.system.number_format import number, p_value

_CALIBRATION = ("accuracy", "coverage_90", "pit_rmse", "ece_15", "ece_null")


def run_table(summary: Mapping[str, Any]) -> Table:
    """NLL and calibration of the model, the exact estimates and the null model on each split."""
    splits = list(summary["metrics"])
    table = Table()
    table.add_column("")
    for split in splits:
        table.add_column("\n".join([split, *sizes(summary, split)]), justify="right")
    for key, name in exact_names(summary).items():
        line = summary.get(key)
        if line is None:
            continue
        if line.get("exists", True) is not False:
            table.add_row(name, *(number(line.get(split, {}).get("nll_nats")) for split in splits))
        else:
            infimum = number(line.get("nll_infimum")) if "nll_infimum" in line else "-"
            others = [_unseen(line.get(split, {})) for split in splits[1:]]
            table.add_row(f"{name}: none, infimum", infimum, *others)
    figures = summary["metrics"]
    name = f"[bold]{escape(model_name(summary))}, {nats(summary)}"
    table.add_row(name, *_cells(figures, "nll_nats"), style="bold")
    table.add_row("  in bits", *_cells(figures, "nll_bits"))
    before, keeps = summary.get("calibration", {}).get("before"), "keeps_density" in summary.get("calibration", {})
    if before is not None and not keeps:
        table.add_row(
            "  before recalibration, in nats", *(number(before.get(split, {}).get("nll_nats")) for split in splits)
        )
    gaps = summary.get("distance", {}).get("gap_nats")
    if gaps:
        errors = summary["distance"].get("gap_se", {})
        table.add_row(
            f"  minus {reference_name(summary, summary['distance']['reference'])}",
            *(f"{number(gaps.get(split), sign=True)} ± {number(errors.get(split))}" for split in splits),
        )
    if null_gaps := summary.get("distance", {}).get("null_gap_nats"):
        errors = summary["distance"].get("null_gap_se", {})
        table.add_row(
            "  minus null model",
            *(f"{number(null_gaps.get(split), sign=True)} ± {number(errors.get(split))}" for split in splits),
        )
    for key in _CALIBRATION:
        if any(key in figures[split] for split in splits):
            table.add_row(f"  {key}", *_cells(figures, key))
        if keeps and any(key in line for line in before.values()):
            table.add_row(f"  {key} before recalibration", *(number(before.get(s, {}).get(key)) for s in splits))
    return table


def coefficient_table(groups: Mapping[str, Sequence[Mapping[str, Any]]], statistic: str) -> Group:
    """Coefficients in original units in groups under their titles, with numbers below each other in all of them.

    Columns that no row has are left out.
    """
    columns = {
        "estimate": ("coef", _digits),
        "std_error": ("std err", _digits),
        "z": (statistic, _statistic),
        "p_value": (f"P>|{statistic}|", p_value),
        "ci_low": ("[0.025", _digits),
        "ci_high": ("0.975]", _digits),
    }
    known = [key for key in columns if any(key in row for rows in groups.values() for row in rows)]
    cells = {
        title: [[columns[key][1](float(row[key])) if key in row else "-" for key in known] for row in rows]
        for title, rows in groups.items()
    }
    every = [[columns[key][0] for key in known], *(line for lines in cells.values() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    longest = max(11, *(cell_len(str(row["name"])) for rows in groups.values() for row in rows))

    def table(lines: Sequence[Sequence[str]], names: Sequence[str], show_header: bool) -> Table:
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        made.show_header = show_header
        made.add_column(" " * longest if show_header else "", overflow="fold")
        for key, width in zip(known, widths, strict=True):
            made.add_column(escape(columns[key][0]), justify="right", no_wrap=True, min_width=width)
        for name, line in zip(names, lines, strict=True):
            # Names of one width make the columns of all groups alike.
            made.add_row(Text(name.ljust(longest)), *line)
        return made

    parts: list[Text | Table] = [table([], [], True)]
    for title, rows in groups.items():
        parts += [Text("")] if len(parts) > 1 else []
        parts += [Text(title, style="bold"), table(cells[title], [str(row["name"]) for row in rows], False)]
    return Group(*parts)


def token_tables(lines: Mapping[str, Mapping[str, Any]]) -> Table:
    """The exact tables of the next token or pixel, as `baseline.json` describes them, by their names.

    The length of the code is that of one that learns while it goes: the tables need not be sent before.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "NLL, nats", "bits", "contexts", "prior strength", "code length, bits"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, line in lines.items():
        nats = line.get("nll_nats", line.get("nll_infimum"))
        cells = [number(nats), number(nats / math.log(2)), f"{line.get('num_contexts', 1):,}"]
        length = line.get("code_length_nats")
        strength = number(line.get("concentration"))
        cells += [strength, number(None if length is None else length / math.log(2))]
        table.add_row(name.removesuffix(" (exact)") + (" (infimum)" if "nll_infimum" in line else ""), *cells)
    return table


def facts(pairs: Sequence[tuple[str, str]]) -> Table:
    """Pairs of name and value in two columns, to be read downwards."""
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column()
        table.add_column(justify="right")
    half = (len(pairs) + 1) // 2
    for left, right in zip_longest(pairs[:half], pairs[half:], fillvalue=("", "")):
        table.add_row(*(Text(cell) for cell in (*left, *right)))
    return table


def _digits(value: float) -> str:
    return f"{value:.0f}" if 1e5 <= abs(value) < 1e8 else f"{value:#.5g}".rstrip(".")


def _statistic(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.4g}"


def _unseen(figures: Mapping[str, Any]) -> str:
    """The cell of an estimate that does not exist, on rows that it was not fitted to."""
    unseen = figures.get("unseen")
    return number(figures.get("nll_nats")) if unseen is None else f"inf: {unseen['tokens']:,} unseen"


def _cells(figures: Mapping[str, Mapping[str, float]], key: str) -> list[str]:
    return [number(values.get(key)) for values in figures.values()]


def markdown(table: Table, sentence: str) -> str:
    """A table and a sentence as Markdown, for TensorBoard; the table is a code block, so that its text is inert."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    plain = [[" ".join(Text.from_markup(cell).plain.split("\n")) for cell in column] for column in columns]
    widths = [max(map(len, column)) for column in plain]
    rows = zip(*plain, strict=True)
    lines = ([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in rows)
    block = code_block("\n".join("  ".join(line) for line in lines))
    return f"{sentence}\n\n{block}\n"


def code_block(text: str) -> str:
    """Text as a code block of Markdown, in which nothing has a meaning."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
