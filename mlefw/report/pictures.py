"""The pictures of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.linear import full_weight
from mlefw.plot.path import coefficient_path
from mlefw.plot.pit import coverage_curve, pit_histogram, randomised
from mlefw.plot.prediction import predictions, residuals
from mlefw.plot.reliability import reliability, reliability_by_class
from mlefw.plot.training import NAMES, Errors, History, Lines, gap_curve, learning_curves
from mlefw.report.forecast import Forecast, Sample


@dataclass(frozen=True)
class CoefficientPath:
    """Theta of a linear model, (size,), at several numbers of epochs."""

    epochs: Sequence[int]
    thetas: Sequence[Tensor]


def training_curves(
    history: History,
    lines: Lines,
    best_epoch: int,
    reference: str | None,
    errors: Errors,
    observation: str = "row",
    names: Mapping[str, str] = NAMES,
) -> dict[str, Figure]:
    """Pictures of the training over epochs, by name.

    Args:
        history: rows of `metrics.csv`.
        lines: NLL of the exact estimates, by name and split.
        best_epoch: the epoch whose state was kept.
        reference: the estimate that gaps are measured from, if any.
        errors: standard error of the gap, by split.
        observation: what one observation is, in a word.
        names: words for the exact estimates, by name.
    """
    if not history:
        return {}
    drawn = {"learning_curves": learning_curves(history, lines, best_epoch, errors, observation, names)}
    if reference is not None and "train" in lines.get(reference, {}):
        drawn["gap"] = gap_curve(history, lines, best_epoch, reference, errors, observation, names)
    return drawn


def calibration(sample: Sample, forecast: Forecast, figures: Mapping[str, float]) -> dict[str, Figure]:
    """The picture of calibration, by name: a reliability diagram or a PIT histogram; also drawn during training.

    Args:
        sample: the rows.
        forecast: the predictive distributions of the rows.
        figures: figures of the metrics on the whole split, whose p-values are used in place of the sample's.
    """
    weight, rows, word = forecast.weight, sample.description, sample.observation
    p_value = figures.get("calibration_p_value")
    if forecast.probabilities is not None:
        if sample.labels is not None and forecast.probabilities.shape[1] > 2:
            cases = forecast.probabilities, forecast.y, weight
            return {"reliability": reliability_by_class(*cases, sample.labels, rows, p_value, word)}
        event = f"{sample.target} = {sample.labels[1] if sample.labels else 1}"
        cases = forecast.probabilities[:, 1], forecast.y, weight
        return {"reliability": reliability(*cases, rows, event, p_value, word)}
    assert forecast.pit is not None
    return {"pit": pit_histogram(*forecast.pit, weight, rows, figures.get("pit_p_value"))}


def predictive_shapes(sample: Sample, forecast: Forecast, figures: Mapping[str, float]) -> dict[str, Figure]:
    """All pictures of the predictive distributions of rows, by name; their titles repeat the figures of the metrics."""
    drawn = calibration(sample, forecast, figures)
    if forecast.mean is None or forecast.interval is None or forecast.pit is None:
        return drawn
    y, mean, weight, rows = forecast.y, forecast.mean, forecast.weight, sample.description
    drawn["coverage"] = coverage_curve(*(forecast.covering or forecast.pit), weight, rows, figures.get("coverage_90"))
    shown = y, mean, *forecast.interval, weight, sample.target, rows, figures, sample.observation
    drawn["predictions"] = predictions(*shown)
    drawn["residuals"] = residuals(randomised(*forecast.pit), mean, weight, rows, sample.target)
    return drawn


def way_of_coefficients(
    way: CoefficientPath, solution: Solution, names: Sequence[str], kept: int, labels: Sequence[str] | None
) -> dict[str, Figure]:
    """The picture of the path of a linear model's coefficients, by name; none without an exact estimate.

    Args:
        way: the recorded path.
        solution: the exact estimate.
        names: names of the features.
        kept: number of epochs at the state that was kept.
        labels: labels of the target, if it has any.
    """
    if not way.epochs or not solution.may_exist or not solution.converged:
        return {}
    weight, bias, shared = full_weight(solution)
    estimate = np.concatenate([np.column_stack([weight.numpy(), bias.numpy()]).ravel(), shared.numpy()])
    titles, active, contrast, shown = _layout(solution, names, labels)
    errors = covariance(solution)
    matrix = None
    if isinstance(errors, Covariance):
        whole = np.zeros((len(titles), len(titles)))
        whole[np.ix_(active, active)] = errors.matrix.numpy()
        matrix = (contrast @ whole @ contrast.T)[np.ix_(shown, shown)]
    thetas = np.stack([theta.numpy() for theta in way.thetas])
    figure = coefficient_path(
        np.array(way.epochs),
        (thetas @ contrast.T)[:, shown],
        [titles[j] for j in np.flatnonzero(shown)],
        (contrast @ estimate)[shown],
        matrix,
        kept,
        "MLE" if solution.problem.prior.flat else "MAP",
    )
    return {"coefficient_path": figure}


def _layout(
    solution: Solution, names: Sequence[str], labels: Sequence[str] | None
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names of theta over all features (P,), whether each entry was estimated (P,), contrasts (P, P), and what to show.

    Contrasts are differences of logits from the reference class, as only these are determined.
    """
    problem, head = solution.problem, solution.problem.head
    columns = [*names, "(intercept)"]
    width = len(columns)
    etas = labels if labels is not None and head.reference is not None else head.eta_names
    titles = [f"{eta}: {name}" if head.eta_dim > 1 else name for eta in etas for name in columns]
    titles += [f"({name})" for name in head.shared_names]
    active = np.ones(len(titles), dtype=bool)
    active[: head.eta_dim * width] = np.tile([*np.isin(range(len(names)), problem.active), True], head.eta_dim)
    contrast, shown = np.eye(len(titles)), active.copy()
    if head.reference is not None:
        first = slice(head.reference * width, (head.reference + 1) * width)
        for k in range(head.eta_dim):
            contrast[k * width : (k + 1) * width, first] -= np.eye(width)
        shown[first] = False
    return titles, active, contrast, shown
