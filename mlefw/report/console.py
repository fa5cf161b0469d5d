"""What a person reads in the terminal."""

import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mlefw.report.references import EXACT as EXACT
from mlefw.report.references import REFERENCES, against, compared
from mlefw.report.references import exact_names as exact_names
from mlefw.system.number_format import number as number
from mlefw.system.number_format import p_value as p_value
from mlefw.system.number_format import robust
from mlefw.system.terminal import Terminal

_AVERAGED = ("laplace", "mc_dropout")
"""What averages over the parameters, by its name in an evaluation."""

_CALIBRATION = ("accuracy", "coverage_90", "pit_rmse", "ece_15", "ece_null")


def console(stderr: bool = False) -> Console:
    """A console that writes plain ASCII-safe text where there is no UTF-8 terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Terminal(file=stream, highlight=False, width=None if stream.isatty() else 140)


def run_table(summary: Mapping[str, Any]) -> Table:
    """NLL and calibration of the model, the exact estimates and the null model on each split."""
    splits = list(summary["metrics"])
    table = Table()
    table.add_column("")
    for split in splits:
        table.add_column(f"{split}\n{rows_of(summary, split)}", justify="right")
    for key, name in exact_names(summary).items():
        line = summary.get(key)
        if line is None:
            continue
        if line.get("exists", True) is not False:
            table.add_row(name, *(number(line.get(split, {}).get("nll_nats")) for split in splits))
        else:
            infimum = number(line.get("nll_infimum")) if "nll_infimum" in line else "-"
            table.add_row(f"{name}: none, infimum", *([infimum] + ["-"] * (len(splits) - 1)))
    figures = summary["metrics"]
    table.add_row(f"[bold]{escape(model_name(summary))}, nats per row", *_cells(figures, "nll_nats"), style="bold")
    table.add_row("  in bits", *_cells(figures, "nll_bits"))
    if "calibration" in summary:
        before = summary["calibration"]["before"]
        table.add_row(
            "  before recalibration, in nats", *(number(before.get(split, {}).get("nll_nats")) for split in splits)
        )
    gaps = summary.get("distance", {}).get("gap_nats")
    if gaps:
        errors = summary["distance"].get("gap_se", {})
        table.add_row(
            f"  minus {REFERENCES[summary['distance']['reference']]}",
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
    return table


def evaluation_lines(content: Mapping[str, Any]) -> list[str]:
    """The figures of an evaluation, the null model and the exact estimates on the same rows first where known."""
    on = f"{content['split']} rows" if "split" in content else "rows"
    lines = [f"{content['run']}: {content['num_rows']} {on}"]
    rows = [(name, content[key].get("nll_nats")) for key, name in exact_names(content).items() if key in content]
    if "calibration" in content:
        rows.append(("before recalibration", content["calibration"]["before"].get("nll_nats")))
    rows = [(f"{name}, in nats", value) for name, value in rows] + list(content["metrics"].items())
    width = max(len(name) for name, _ in rows)
    method = next((name for name in _AVERAGED if name in content), "")
    averaged = content.get(method, {})
    if averaged:
        lines.append(f"  {'':<{width}}{'as fitted':>14}{method:>14}")
    for name, value in rows:
        beside = f"{number(averaged[name]):>14}" if name in averaged else ""
        lines.append(f"  {name:<{width}}{number(value):>14}{beside}")
    distance = content.get("distance", {})
    names = {"gap": REFERENCES.get(distance.get("reference", ""), ""), "null_gap": "null model"}
    for key, name in names.items():
        if f"{key}_nats" in distance:
            error = number(distance.get(f"{key}_se"))
            lines.append(f"minus {name}: {number(distance[f'{key}_nats'], sign=True)} ± {error} nats per row")
    if content.get("calibration", {}).get("fitted_on") == content.get("split", ""):
        lines.append(f"The recalibration ({content['calibration']['method']}) was fitted on these rows.")
    if "misfit" in content:
        lines.append(content["misfit"]["sentence"])
    return lines


def verdict(summary: Mapping[str, Any]) -> str:
    """The result in one or two sentences."""
    distance = summary.get("distance", {})
    baseline = summary.get("baseline") or {}
    sentences = []
    if baseline.get("exists") is False:
        sentences.append(f"The linear model has no finite MLE: {baseline.get('reason')}.")
    for key, name in compared(summary):
        gaps, errors = distance.get(f"{key}_nats", {}), distance.get(f"{key}_se", {})
        few = distance.get("decisive", {}) if key == "gap" else {}
        split = next((split for split in ("test", "validation", "train") if split in gaps or split in few), None)
        if split is not None:
            gap, error, without = robust(gaps.get(split), errors.get(split, float("inf")), few.get(split))
            sentences.append(against(name, gap, error, split + without))
    if "misfit" in summary:
        sentences.append(summary["misfit"]["sentence"])
    loss = summary.get("loss", "plain")
    if loss != "plain":
        sentences.append(f"Training descended another loss, {loss}; every NLL here is the plain one.")
    elif "parameter" in distance:
        excess = distance["excess_objective"] if abs(distance["excess_objective"]) > 1e-12 else 0.0
        end = "reached the exact optimum" if abs(excess) < 1e-6 else "stopped short of the exact optimum"
        sentences.append(f"Training {end} ({excess:.2g} nats per row above it).")
    elif "head_refit_gap" in distance:
        refit = distance["head_refit_gap"]
        sentences.append(f"Refitting the last layer exactly would gain {refit:.2g} nats per row on train.")
    if "calibration" in summary:
        sentences.append(recalibration(summary["calibration"]))
    return " ".join(sentences)


def recalibration(content: Mapping[str, Any]) -> str:
    """How a model was recalibrated and what that changed, in a sentence: `calibration` of `summary.json`."""
    text = f"Recalibrated {fitted_by(content)}"
    test = [content[key].get("test", {}).get("nll_nats") for key in ("before", "after")]
    if None in test:
        return f"{text}, so that no figure on them is an independent one."
    return f"{text}: {number(test[0])} became {number(test[1])} nats per row on test."


def fitted_by(content: Mapping[str, Any]) -> str:
    """A recalibration with its parameters, and the rows they come from."""
    known = content["parameters"]
    words = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in known.items()]
    parameters = ", ".join(words) if len(known) > 1 else f"{next(iter(known.values())):.4g}"
    return f"by {content['method']} ({parameters}), fitted on the {content['fitted_on']} rows"


def model_name(summary: Mapping[str, Any], split: str | None = None) -> str:
    """The model and what recalibrated it, and whether that was fitted to the rows of the split."""
    name = str(summary.get("model", ""))
    if "calibration" not in summary:
        return name
    fitted = " (fitted on these rows)" if summary["calibration"]["fitted_on"] == split else ""
    return f"{name} + {summary['calibration']['method']}{fitted}"


def rows_of(summary: Mapping[str, Any], split: str) -> str:
    """The number of rows of a split, and whether figures on them are those of a recalibration fitted to them."""
    fitted = summary.get("calibration", {}).get("fitted_on") == split
    return f"{summary['num_rows'][split]} rows" + (" (fitted on)" if fitted else "")


def coefficient_table(title: str, rows: Sequence[Mapping[str, Any]], statistic: str) -> Group:
    """Coefficients in original units under their title, aligned; columns that no row has are left out."""
    columns = {
        "estimate": ("coef", _digits),
        "std_error": ("std err", _digits),
        "z": (statistic, _statistic),
        "p_value": (f"P>|{statistic}|", p_value),
        "ci_low": ("[0.025", _digits),
        "ci_high": ("0.975]", _digits),
    }
    known = [key for key in columns if any(key in row for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold", min_width=11)
    for key in known:
        table.add_column(escape(columns[key][0]), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(str(row["name"])), *(columns[key][1](row[key]) if key in row else "-" for key in known))
    return Group(Text(title, style="bold"), table)


def facts(pairs: Sequence[tuple[str, str]]) -> Table:
    """Names and values in two columns, read downwards."""
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


def _cells(figures: Mapping[str, Mapping[str, float]], key: str) -> list[str]:
    return [number(values.get(key)) for values in figures.values()]


def chosen(summary: Mapping[str, Any], *more: str) -> list[str]:
    """The keys of what a run was asked for; a loss only where it is not the likelihood."""
    keys = ("head", "prior", "loss", "batch", "model", *more)
    return [key for key in keys if key in summary and (key != "loss" or summary[key] != "plain")]


def heading(summary: Mapping[str, Any]) -> str:
    """What was trained, in one line."""
    words = (f"{key}={summary[key]}" for key in chosen(summary))
    return escape(f"{'  '.join(words)}  seed={summary['seed']}  ({summary['num_parameters']} parameters)")


def markdown(table: Table, sentence: str) -> str:
    """A table and its verdict as Markdown, for TensorBoard; cell text is fenced, so that nothing in it is markup."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    plain = [[" ".join(Text.from_markup(cell).plain.split("\n")) for cell in column] for column in columns]
    widths = [max(map(len, column)) for column in plain]
    rows = zip(*plain, strict=True)
    lines = ([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in rows)
    block = "\n".join("    " + "  ".join(line) for line in lines)
    return f"{sentence}\n\n{block}\n"
