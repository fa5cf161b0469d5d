"""The table of smooth terms and effects of groups for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mlefw.system.number_format import number


def random_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Effective degrees of freedom and scales of each term, as `baseline.json` has them under `random`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "edf", "scale", ""):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for line in lines:
        title = f"{line['parameter']}: {line['term']}"
        note = "at its limit" if line["at_limit"] else ""
        if "sd" not in line:
            table.add_row(Text(title), number(line["edf"]), f"precision {number(line['precision'])}", note)
            continue
        note = note or f"{line['num_groups']:,} groups"
        for k, (effect, sd) in enumerate(line["sd"].items()):
            head = (Text(title), number(line["edf"])) if k == 0 else (Text(""), "")
            table.add_row(*head, f"sd {effect} {number(sd)}", note if k == 0 else "")
        for pair, value in line.get("correlations", {}).items():
            table.add_row("", "", f"correlation {pair} {value:.3f}", "")
    return table


def random_notes(content: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of the scales of penalised terms, a sentence each."""
    how = content["scales"]
    if how["criterion"] == "given":
        return ["Scales of smooth terms and effects of groups are those of baseline.scales."]
    way = "integrated out exactly" if how["exact"] else "integrated out by Laplace's approximation"
    end = f"{how['num_optima']} optimum{'s' if how['num_optima'] > 1 else ''} from 3 starts."
    if how["criterion"] == "ml":
        return [
            f"Maximum likelihood of the scales and all coefficients in the tables together, the smooth terms and "
            f"effects of groups {way}: log-likelihood {-how['value']:.8g}, largest derivative "
            f"{how['gradient']:.1e}, {end}",
            "Log-likelihood, AIC and BIC are those of this likelihood; the NLL is that of the rows given the effects.",
        ]
    return [
        f"Scales of smooth terms and effects of groups: restricted likelihood, coefficients {way}; its log "
        f"{-how['value']:.8g}, largest derivative in a log scale {how['gradient']:.1e}, {end}",
        "Restricted likelihoods of models with other terms outside of s(…) and (… | g) do not compare.",
    ]
