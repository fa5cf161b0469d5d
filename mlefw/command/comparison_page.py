"""The report of a comparison of runs as one HTML file, with its pictures."""

from collections.abc import Sequence
from pathlib import Path

from mlefw.report import comparison
from mlefw.report.observation import nats
from mlefw.report.page import Picture
from mlefw.system.atomic import Json, write_text


def write_report(summaries: Sequence[Json], path: Path, more: Sequence[Picture] = ()) -> None:
    """Write the comparison as one self-contained HTML file.

    Args:
        summaries: as `compare.run` returns them.
        path: of the file.
        more: further pictures, of the best run.
    """
    write_text(path, comparison.comparison_report(summaries, [*_pictures(summaries)], more))


def _pictures(summaries: Sequence[Json]) -> list[Picture]:
    """The NLL of each candidate; and of several settings, over all of them at once and over each."""
    from mlefw.plot.comparison import comparison as drawing
    from mlefw.plot.style import png
    from mlefw.plot.swept import by_setting, parallel

    ranked = [s for s in summaries if s["status"] == "finished" and "nll_nats" in s["metrics"][s["ranked_by"]]]
    if not ranked:
        return []
    split, unit = comparison.named(ranked[0]["ranked_by"]), nats(ranked[0])
    figures = [summary["metrics"][ranked[0]["ranked_by"]] for summary in ranked]
    names = [comparison.name_of(summary) for summary in ranked]
    values, errors = ([known.get(key, 0.0) for known in figures] for key in ("nll_nats", "nll_se"))
    figure = drawing(names, values, errors, split, unit)
    conclusion = f"{names[0]} has the least NLL on {split} rows"
    found = [Picture(png(figure), conclusion, "Mean NLL of each run ± 2 standard errors.")]
    if not min(values) < float("inf"):
        return found
    settings = {name: [s["settings"].get(name) for s in ranked] for s in ranked for name in s["settings"]}
    settings = {name: column for name, column in settings.items() if len({repr(value) for value in column}) > 1}
    drawn = [parallel(settings, values, split, unit)] if len(settings) > 1 else []
    captions = ["A line for each candidate through the values of its settings to its NLL."] * len(drawn)
    for name, column in settings.items():
        drawn.append(by_setting(name, column, values, split, unit))
        captions.append(f"NLL of each candidate over {name}.")
    titles = [figure.get_suptitle().replace("\n", " ").replace(r"\$", "$") for figure in drawn]
    return found + [Picture(png(one), *words) for one, *words in zip(drawn, titles, captions, strict=True)]
