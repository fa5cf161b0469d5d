"""The candidates among which `mlefw compare` ranks: runs whose settings are equal but for their seeds count as one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from mlefw.baseline.distance import paired
from mlefw.configuration.expansion import load_yaml
from mlefw.configuration.scalars import differing
from mlefw.errors import UsageError
from mlefw.run import row_scores
from mlefw.run.row_scores import RowScores
from mlefw.score.selection import optimism
from mlefw.system.atomic import Json

SEEDS = ("seed", "data.seed", "cv.fold")
"""The settings that tell the runs of one candidate apart."""


def with_settings(summaries: Sequence[Json]) -> list[Json]:
    """The summaries, each with `settings`: those in which the runs differ, by name.

    The runs' `config.yaml` have them; of a run without one the settings are not known.
    """
    configs = [_configuration(Path(summary["run_dir"])) for summary in summaries]
    known = [position for position, config in enumerate(configs) if config]
    columns = differing([configs[position] for position in known])
    settings: list[dict[str, Any]] = [{} for _ in summaries]
    for name, values in columns.items():
        for position, value in zip(known, values, strict=True):
            settings[position][name] = value
    return [{**summary, "settings": own} for summary, own in zip(summaries, settings, strict=True)]


def candidates(finished: Sequence[Json], split: str) -> list[Json]:
    """One summary for each candidate, best first by mean NLL over its runs on the rows of a split.

    That of several runs has means for its figures, its standard errors over rows from the mean NLL of each row, and in
    addition `seeds`: its runs, the standard error of their mean NLL on the split over them, and the difference between
    the least and the greatest. `run_dir` is then that of the run with the least NLL on the split.

    Args:
        finished: summaries as `with_settings` returns them.
        split: of which all have the NLL.
    """
    groups: dict[str, list[Json]] = {}
    for summary in finished:
        own = {name: value for name, value in summary["settings"].items() if name not in SEEDS}
        # Without a configuration nothing tells that another run has the same settings.
        key = repr(own) if summary["settings"] else summary["run_dir"]
        groups.setdefault(key, []).append(summary)
    merged = [_merged(sorted(group, key=_nll(split)), split) for group in groups.values()]
    return sorted(merged, key=_nll(split))


def scores_of(candidate: Json, split: str) -> RowScores | None:
    """The mean NLL over the runs of a candidate of each row of a split; None unless all are known, on the same rows."""
    runs = candidate["seeds"]["runs"] if "seeds" in candidate else [candidate["run_dir"]]
    found = [row_scores.read(Path(run_dir), split) for run_dir in runs]
    known = [one for one in found if one is not None]
    return row_scores.averaged(known) if len(known) == len(found) else None


def selection(ranked: Sequence[Json], split: str) -> Json | None:
    """How many candidates the best was chosen among, and by how much its NLL is too low for that on average.

    None unless all that have a finite NLL are on the same rows, so that each has `behind`.
    """
    best = scores_of(ranked[0], split)
    if best is None:
        return None
    others = [candidate for candidate in ranked[1:] if candidate["metrics"][split]["nll_nats"] < float("inf")]
    if not all("behind" in candidate for candidate in others):
        return None

    def columns() -> Iterable[Any]:
        for candidate in (ranked[0], *others):
            scores = scores_of(candidate, split)
            assert scores is not None
            yield scores.nll.double().numpy()

    unit = None if best.unit is None else best.unit.numpy()
    return {"among": len(ranked), "optimism_nats": optimism(columns(), best.weight.double().numpy(), unit)}


def _configuration(run_dir: Path) -> Json:
    try:
        content = load_yaml(run_dir / "config.yaml")
    except (OSError, ValueError, yaml.YAMLError, UsageError):
        # Figures are compared without it.
        return {}
    return content if isinstance(content, dict) else {}


def _nll(split: str) -> Callable[[Json], float]:
    return lambda summary: float(summary["metrics"][split].get("nll_nats", float("inf")))


def _merged(runs: Sequence[Json], split: str) -> Json:
    """The summary of a candidate with these runs, the best first."""
    if len(runs) == 1:
        return runs[0]
    nll = [_nll(split)(run) for run in runs]
    merged = {**runs[0], "metrics": _means([run["metrics"] for run in runs])}
    distance = _means([run.get("distance", {}) for run in runs])
    # Which rows decide is said of one run alone.
    merged["distance"] = {name: value for name, value in distance.items() if name != "decisive"}
    merged.pop("misfit", None)
    merged["settings"] = {name: value for name, value in runs[0]["settings"].items() if name not in SEEDS}
    merged["seeds"] = {
        "runs": [run["run_dir"] for run in runs],
        "spread": nll[-1] - nll[0] if nll[-1] < float("inf") else float("inf"),
        "nll_se": stdev(nll) / len(nll) ** 0.5 if nll[-1] < float("inf") else float("inf"),
    }
    for name, figures in merged["metrics"].items():
        scores = scores_of(merged, name)
        if scores is not None and "nll_se" in figures:
            figures["nll_se"] = paired(scores.nll, scores.weight, scores.clustered, scores.unit)[1]
    return merged


def _means(parts: Sequence[Mapping[str, Any]]) -> Json:
    """The means of the numbers that all parts have, at every depth; of other values, those that all share."""
    found: Json = {}
    for name in (name for name in parts[0] if all(name in part for part in parts)):
        values = [part[name] for part in parts]
        if all(isinstance(value, Mapping) for value in values):
            found[name] = _means(values)
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found[name] = fmean(values)
        elif all(value == values[0] for value in values):
            found[name] = values[0]
    return found
