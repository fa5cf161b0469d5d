"""Answers to the queries of the page: a comparison of descents with the exact estimate."""

import io
import time
from collections.abc import Mapping
from functools import lru_cache

from mlefw.errors import UsageError
from mlefw.experiment.sgd_to_mle import final_table, headline, one, picture
from mlefw.prior.base import Prior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.report.findings import cell_text
from mlefw.simulation import descents
from mlefw.simulation.sgd_theory import curvature
from mlefw.system.atomic import Json

LIMITS = {"n": (200, 2000), "batch_size": (10, 500), "lr": (0.1, 5.0), "iterations": (50, 500), "scale": (0.01, 10.0)}
"""Least and greatest value of each slider: n rows, batch_size rows, the learning rate, iterations, the prior scale."""

_MOST_KNOWN = 64
"""Answers that are cached, as sliders are often moved back."""


def settings(query: Mapping[str, str]) -> tuple[descents.Settings, Prior]:
    """The settings of the descents and the prior that a query asks for, with the defaults of the page.

    Raises:
        UsageError: a value is unknown or outside the range of its slider.
    """
    wanted: dict[str, float] = {"n": 500, "batch_size": 50, "lr": 1.0, "iterations": 200, "scale": 1.0, "seed": 0}
    for name in wanted:
        try:
            wanted[name] = float(query.get(name, wanted[name]))
        except ValueError as error:
            raise UsageError(f"{name}={query[name]}: expected a number") from error
        low, high = LIMITS.get(name, (0, 2**31))
        if not low <= wanted[name] <= high:
            raise UsageError(f"{name}={wanted[name]:g}: expected a number from {low:g} to {high:g}")
    head, prior = query.get("head", "bernoulli"), query.get("prior", "none")
    priors = {"none": NoPrior, "l2": lambda: L2Prior(wanted["scale"]), "l1": lambda: L1Prior(wanted["scale"])}
    if head not in descents.TRUTHS or prior not in priors:
        raise UsageError(
            f"head={head}, prior={prior}: expected a head of {', '.join(descents.TRUTHS)}, and none, l2 or l1"
        )
    whole = {name: int(wanted[name]) for name in ("n", "batch_size", "iterations", "seed")}
    chosen = descents.Settings(head, whole["n"], whole["batch_size"], wanted["lr"], whole["iterations"], whole["seed"])  # type: ignore[arg-type]
    return chosen, priors[prior]()


def answer(query: Mapping[str, str]) -> Json:
    """The answer to a query, for JSON: picture (SVG), conclusion, table of final values, largest stable learning rate.

    Calls must not overlap, because Matplotlib's settings are global to the process.

    Raises:
        UsageError: a value of the query is unknown or out of range.
    """
    start = time.monotonic()
    content = _content(tuple(sorted(query.items())))
    return content | {"seconds": time.monotonic() - start}


@lru_cache(_MOST_KNOWN)
def _content(query: tuple[tuple[str, str], ...]) -> Json:
    """The answer without its time, cached by the sorted query."""
    chosen, prior = settings(dict(query))
    ran = descents.run(chosen, prior)
    table, _ = final_table(ran)
    file = io.StringIO()
    picture(ran, has_box=False).savefig(file, format="svg", metadata={"Date": None})
    content: Json = {
        "svg": file.getvalue(),
        "headline": headline(ran),
        "columns": list(table.columns),
        "rows": [[cell_text(cell) for cell in row] for row in table.rows],
    }
    if prior.flat and ran.has_optimum:
        content["largest_rate"] = curvature(one(ran), ran.exact.theta).largest_rate
    return content
