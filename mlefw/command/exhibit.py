"""The pictures and the report that a run leaves behind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mlefw import gallery
from mlefw.atomic import write_atomically, write_text
from mlefw.callback.coefficients import RecordCoefficients
from mlefw.callback.figures import LogFigures
from mlefw.errors import StorageError
from mlefw.forecast import Forecast, Sample
from mlefw.plot.style import png
from mlefw.report.page import Picture
from mlefw.report.run import run_report
from mlefw.score import Exact
from mlefw.warn import warn

CAPTIONS = {
    "learning_curves": "Mean NLL after each epoch, with the exact estimates as flat lines.",
    "gap": "NLL of the model minus that of the exact estimate, after each epoch.",
    "coefficient_path": "Coefficients over epochs, in standard errors from the exact estimate, and two in their plane.",
    "reliability": "Observed frequency against forecast probability: isotonic curve and equal bins.",
    "pit": "Histogram of the probability integral transform: flat where predictive distributions are right.",
    "coverage": "Share of observations in central prediction intervals against the share that was promised.",
    "predictions": "Predicted mean and 90 % interval beside each observation.",
    "residuals": "Quantile residuals against the predicted mean, and their normal quantile-quantile plot.",
}


def draw(
    log: LogFigures,
    recorder: RecordCoefficients | None,
    exact: Exact,
    best_epoch: int,
    sample: Sample,
    seen: Forecast | None,
    names: Sequence[str],
    figures: Mapping[str, float],
) -> list[tuple[str, Picture]]:
    """Every picture that the run allows, by the name of its file.

    Args:
        log: the history.
        recorder: of the coefficients of a linear model.
        exact: the exact estimates.
        best_epoch: whose state was kept.
        sample: the rows that are looked at.
        seen: the predictive distributions on them.
        names: of the design columns.
        figures: of the metrics on the split of the sample.
    """
    drawn: dict[str, Figure] = gallery.training(log.history, log.lines, best_epoch, log.reference)
    if recorder is not None and exact.optimum is not None and exact.optimum.converged:
        way = gallery.Path(recorder.epochs, recorder.thetas)
        name = "MLE" if exact.optimum.problem.prior.flat else "MAP"
        drawn |= gallery.path(way, exact.optimum, names, best_epoch + 1, name)
    if seen is not None:
        drawn |= gallery.predictive(sample, seen, figures)
    return [
        (name, Picture(png(figure), figure.get_suptitle().replace("\n", " ").replace(r"\$", "$"), CAPTIONS[name]))
        for name, figure in drawn.items()
    ]


def store(folder: Path, pictures: Sequence[tuple[str, Picture]]) -> None:
    """Write `<name>.png` for each; one that cannot be written is a warning, since the run itself is done."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        for name, picture in pictures:
            content = picture.content
            write_atomically(folder / f"{name}.png", lambda file, content=content: file.write(content))
    except (OSError, StorageError) as error:
        warn(f"not every picture could be written: {error}")


def report(run_dir: Path, summary: Mapping[str, Any], baseline: Any, pictures: Sequence[tuple[str, Picture]]) -> None:
    """Write `report.html`; where it cannot be written, a warning."""
    try:
        configuration = (run_dir / "config.yaml").read_text(encoding="utf-8")
        shown = [picture for _, picture in pictures]
        write_text(run_dir / "report.html", run_report(run_dir.name, summary, baseline, configuration, shown))
    except (OSError, StorageError) as error:
        warn(f"the report could not be written: {error}")
