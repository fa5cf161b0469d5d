"""What the NLL of a run is counted per: a row, or a token, pixel or other position of a row, in words."""

from collections.abc import Mapping
from typing import Any


def observation(content: Mapping[str, Any]) -> str:
    """The word for one observation, by a summary or the content of an evaluation: `row`, where it does not say."""
    return str(content.get("observation", "row"))


def nats(content: Mapping[str, Any]) -> str:
    """The unit of the mean NLL: `nats per row`, `nats per token`."""
    return f"nats per {observation(content)}"


def sizes(summary: Mapping[str, Any], split: str) -> list[str]:
    """The number of rows of a split, with a note if a recalibration was fitted on them.

    Behind it are the number of observations, where rows have several, and the units of standard errors, where they are
    not the rows.
    """
    fitted = summary.get("calibration", {}).get("fitted_on") == split
    found = [f"{summary['num_rows'][split]} rows" + (" (fitted on)" if fitted else "")]
    if observation(summary) != "row":
        found.append(f"{summary['num_observations'][split]:.10g} {observation(summary)}s")
    units = summary.get("nll_se_unit")
    return [*found, units[split]] if isinstance(units, Mapping) and split in units else found
