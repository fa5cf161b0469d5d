"""The pictures and the report that a run leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mlefw.callback.coefficients import RecordCoefficients
from mlefw.errors import StorageError
from mlefw.objective.objective import Evaluation, Objective
from mlefw.plot.style import png
from mlefw.plot.training import NAMES, History, Lines
from mlefw.report.forecast import Forecast, Sample
from mlefw.report.observation import observation
from mlefw.report.page import Picture, Section
from mlefw.report.pictures import CoefficientPath, predictive_shapes, training_curves, way_of_coefficients
from mlefw.report.references import REFERENCES, reference_name
from mlefw.report.run import failure_report, run_report
from mlefw.run import exhibit_arrays
from mlefw.run.build import Data
from mlefw.run.fitting import Fit
from mlefw.schema.kinds import RowSchema
from mlefw.system.atomic import write_bytes, write_text
from mlefw.system.attempt import attempt
from mlefw.system.own_folder import replace_links
from mlefw.system.warning import collected, warn

Exhibit = tuple[str, Picture | Section]
"""The name of a file without its end, and a picture with title and caption, or a section of text."""

CAPTIONS = {
    "learning_curves": "Mean NLL after each epoch, with the exact estimates as flat lines.",
    "gap": "NLL of the model minus that of the exact estimate, after each epoch.",
    "coefficient_path": "Coefficients over epochs, in standard errors from the exact estimate, and two in their plane.",
    "reliability": "Observed frequency against forecast probability: isotonic curve and equal bins.",
    "pit": "Histogram of the probability integral transform: flat where predictive distributions are right.",
    "coverage": "Share of observations in central prediction intervals against the share that was promised.",
    "predictions": "Predicted mean and 90 % interval beside each observation.",
    "confusion": "Counts of the observed class and of the likeliest class of the forecast, coloured by share.",
    "nll_by_position": "Mean NLL at each position of a row, beside the null model and the exact estimate.",
    "hardest": "The images with the largest NLL, with what was observed and what was forecast.",
    "sample": "Images drawn from the model, pixel by pixel; by chance, for the seed of the run.",
    "residuals": "Quantile residuals against the predicted mean, and their normal quantile-quantile plot.",
}


def of_training(fit: Fit, summary: Mapping[str, Any], schema: RowSchema, with_path: bool) -> list[tuple[str, Picture]]:
    """The pictures of the training over epochs; `with_path` adds the path of a linear model's coefficients.

    Where the model was recalibrated, captions say that they show it before that, and gaps have no error bars: the
    errors in the summary are those after the recalibration.
    """
    recalibrated = "calibration" in summary
    errors = {} if recalibrated else summary["distance"].get("gap_se", {})
    best, log = fit.keeper.best_epoch, fit.log
    lines, reference = log.yardstick.mean_nll, log.yardstick.exact.reference
    name = None if reference is None else reference[0]
    drawn = partial(curves, log.history, lines, name, best, errors, summary)
    pictures = captioned(attempt("pictures of the training", drawn, {}))
    if with_path and fit.recorder is not None:
        recorder = fit.recorder
        pictures += attempt("the picture of the coefficients", lambda: _coefficients(recorder, schema, best), [])
    if not recalibrated:
        return pictures
    return [(name, replace(one, caption=f"{one.caption} Before recalibration.")) for name, one in pictures]


def curves(
    history: History,
    lines: Lines,
    reference: str | None,
    best_epoch: int,
    errors: Mapping[str, float],
    summary: Mapping[str, Any],
) -> dict[str, Figure]:
    """The figures of the training over epochs (`training_curves`), in the words of a summary."""
    words = NAMES | {one: reference_name(summary, one) for one in REFERENCES}
    return training_curves(history, lines, best_epoch, reference, errors, observation(summary), words)


def _coefficients(recorder: RecordCoefficients, schema: RowSchema, best_epoch: int) -> list[tuple[str, Picture]]:
    way = CoefficientPath(recorder.epochs, recorder.thetas)
    return captioned(way_of_coefficients(way, recorder.solution, schema.names, best_epoch + 1, schema.labels))


def predictive(sample: Sample, seen: Forecast, figures: Mapping[str, float]) -> list[tuple[str, Picture]]:
    """The pictures of the predictive distributions; `figures` are the metrics on the split of the sample."""
    return captioned(predictive_shapes(sample, seen, figures))


def of_arrays(
    final: Objective, evaluations: Mapping[str, Evaluation], data: Data, summary: Mapping[str, Any]
) -> list[Exhibit]:
    """What a run on arrays shows of its forecasts.

    Args:
        final: the model that forecasts.
        evaluations: the model on each split.
        data: the rows.
        summary: the content of `summary.json`.
    """
    split = exhibit_arrays.shown_split(data.splits)
    rows = data.splits[split]
    found = exhibit_arrays.pictures(final, evaluations[split], rows, data.schema, split, summary)
    return as_exhibits(found | exhibit_arrays.sample(final, data.schema, int(summary["seed"])))


def as_exhibits(found: Mapping[str, Figure | Section]) -> list[Exhibit]:
    """Pictures with their titles and captions, then sections of text."""
    texts = [(name, one) for name, one in found.items() if isinstance(one, Section)]
    return [*captioned({name: one for name, one in found.items() if not isinstance(one, Section)}), *texts]


def captioned(drawn: Mapping[str, Figure]) -> list[tuple[str, Picture]]:
    """Figures by name as pictures with their captions."""
    return [
        (name, Picture(png(figure), figure.get_suptitle().replace("\n", " ").replace(r"\$", "$"), CAPTIONS[name]))
        for name, figure in drawn.items()
    ]


def store(folder: Path, pictures: Sequence[Exhibit]) -> None:
    """Write each picture to `<name>.png`, and each text to `<name>.txt`; where that fails there is a warning alone."""
    try:
        replace_links(folder).mkdir(mode=0o755, exist_ok=True)
        for name, picture in pictures:
            if isinstance(picture, Picture):
                write_bytes(folder / f"{name}.png", picture.content)
            else:
                write_text(folder / f"{name}.txt", picture.text)
    except (OSError, StorageError) as error:
        warn(f"not every picture could be written: {error}")


def failure(run_dir: Path, reason: str) -> None:
    """Write `report.html` of a run that failed, with the reason and the settings.

    Raises:
        StorageError: it cannot be written.
    """
    configuration = (run_dir / "config.yaml").read_text(encoding="utf-8") if (run_dir / "config.yaml").is_file() else ""
    write_text(run_dir / "report.html", failure_report(run_dir.name, reason, configuration, collected()))


def report(run_dir: Path, summary: Mapping[str, Any], baseline: Any, pictures: Sequence[Exhibit]) -> None:
    """Write `report.html`; where that fails there is a warning, and no error."""
    try:
        configuration = (run_dir / "config.yaml").read_text(encoding="utf-8")
        shown = [picture for _, picture in pictures if isinstance(picture, Picture)]
        texts = [section for _, section in pictures if isinstance(section, Section)]
        write_text(run_dir / "report.html", run_report(run_dir.name, summary, baseline, configuration, shown, texts))
    except (OSError, StorageError) as error:
        warn(f"the report could not be written: {error}")
