"""The table of a cross-validation in the terminal."""

from rich.table import Table

from mlefw.report.observation import nats
from mlefw.system.atomic import Json
from mlefw.system.number_format import number

_MOST = 50
"""Most folds that are shown one by one."""


def fold_table(content: Json) -> Table:
    """A table of the NLL of each fold and of all held-out rows, beside the NLL of the baseline.

    Args:
        content: the content of `cv.json`.
    """
    baseline = content.get("baseline", {}).get("name", "baseline")
    table = Table()
    for name in ("fold", "fitted", "held out", f"{content['name']}, {nats(content)}", baseline, "difference"):
        table.add_column(name, justify="left" if name == "fold" else "right")
    shown = content["folds"] if len(content["folds"]) <= _MOST else []
    for one in shown:
        name = f"{one['repeat']}.{one['fold']}" if content["cv"].get("repeats", 1) > 1 else str(one["fold"])
        figures = [one.get("nll_nats"), one.get("baseline_nll_nats")]
        difference = None if None in figures else figures[0] - figures[1]
        state = number(figures[0]) if one["status"] == "finished" else one["status"]
        table.add_row(
            name, str(one["num_train"]), str(one["num_test"]), state, number(figures[1]), number(difference, sign=True)
        )
    if shown:
        table.add_section()
    whole = [
        content.get("nll", {}).get("nats"),
        content.get("baseline", {}).get("nats"),
        content.get("difference", {}).get("nats"),
    ]
    table.add_row(
        *("[bold]all held-out rows", "", str(content["num_held_out"])),
        *(number(whole[0]), number(whole[1]), number(whole[2], sign=True)),
    )
    for key, name in ERRORS.items():
        errors = [content.get(part, {}).get(key) for part in ("nll", "baseline", "difference")]
        if any(error is not None for error in errors):
            table.add_row(f"  ± {name}", "", "", *(number(error) for error in errors))
    return table


ERRORS = {
    "naive_se": "naive",
    "corrected_se": "corrected (Nadeau-Bengio)",
    "clustered_se": "clustered by group",
    "hac_se": "Newey-West over time",
}
"""Names of the standard errors in the table, by their keys in `cv.json`."""
