"""The parameter uncertainty of a run: kept in its checkpoint at the end of training, or computed from its own data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlefw.configuration.groups import member_settings
from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.metric.nll import Nll
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.rows.tensor_inputs import row_statistics
from mlefw.run import archive, build
from mlefw.run.checkpoint import Trained
from mlefw.run.directory import checkpoint_of
from mlefw.run.pooled import Pooled
from mlefw.system.atomic import Json
from mlefw.system.warning import warn
from mlefw.uncertainty.base import Method, Uncertain

_BLOCK = 4096
"""Rows that are averaged over parameters at a time: each row has up to a thousand nodes."""


def keep_posterior(config: Settings, run_dir: Path, objective: Objective, splits: dict[str, Rows]) -> Json:
    """Fit the uncertainty of the parameters, and store it in the best checkpoint.

    Returns:
        Facts and figures for the summary, under the name of the method; empty for `uncertainty=none`, and with a
        warning where there is none at the weights that training has reached.
    """
    method = build.build_uncertainty(config.uncertainty)
    if method is None:
        return {}
    held_out = {split: rows for split, rows in splits.items() if split != "train"}
    try:
        found = method.fit(objective, splits["train"])
    except UsageError as error:
        warn(str(error))
        return {}
    if (state := found.state()) is not None:
        archive.amend(checkpoint_of(run_dir), posterior=state)
    return {method.name: found.facts() | _figures_by_split(objective, found, held_out)}


def _figures_by_split(
    objective: Objective, uncertain: Uncertain, splits: dict[str, Rows]
) -> dict[str, dict[str, float]]:
    figures = {split: averaged_figures(objective, uncertain, rows, [Nll()]) for split, rows in splits.items()}
    return {split: values for split, values in figures.items() if values}


def method_of(uncertainty: str) -> Method | None:
    """The method of a name; None for `none`.

    Raises:
        UsageError: there is no method of this name.
    """
    if uncertainty not in (known := member_settings("uncertainty")):
        raise UsageError(f"uncertainty={uncertainty!r}: expected {', '.join(known)}, or a method")
    return build.build_uncertainty(known[uncertainty])


def posterior_of(trained: Trained, method: Method | None, stored: bool = False) -> Uncertain | None:
    """The uncertainty of the parameters of a trained run; None for none.

    Args:
        trained: the run.
        method: the method asked for; its result is computed where the checkpoint does not hold it. None for no method.
        stored: whether to take the uncertainty that the checkpoint holds where no method is asked for.

    Raises:
        UsageError: rows have positions; or the run is recalibrated; or it is an ensemble; or the checkpoint does not
            hold the uncertainty, and the training rows cannot be read again or have changed.
    """
    if method is not None and (positions := trained.schema.row_shape.positions):
        raise UsageError(
            f"uncertainty={method.name} averages forecasts of rows of one observation, and rows have {positions}: "
            "expected uncertainty=none"
        )
    if isinstance(trained, Pooled) and method is not None:
        raise UsageError(
            f"uncertainty={method.name}: it is found about the parameters of one run, and an ensemble mixes "
            f"{len(trained.members)}: expected uncertainty=none, or one of the runs"
        )
    if isinstance(trained, Pooled) or (method is None and not stored):
        return None
    if method is not None and trained.calibration is not None:
        raise UsageError(
            f"uncertainty={method.name}: {trained.path} holds a recalibration, which was fitted to predictions given "
            "the fitted parameters: expected uncertainty=none, or a run of `mlefw train calibrate=none`"
        )
    if method is not None and not method.needs_rows:
        return method.fit(trained.objective, None)
    content = archive.read(trained.path).get("posterior")
    of_training = build.build_uncertainty(trained.config.uncertainty)
    if method is None:
        return None if content is None or of_training is None else of_training.restore(content)
    found = None
    if content is not None and of_training is not None and of_training.name == method.name:
        found = method.restore(content)
    return _computed(trained, method) if found is None else found


def _computed(trained: Trained, method: Method) -> Uncertain:
    """The uncertainty computed from the training rows, which are read again."""
    missing = f"uncertainty={method.name}: {trained.path} does not hold the uncertainty of its parameters"
    advice = f"expected a run of `mlefw train {method.setting}`"
    try:
        data = build.build_data(trained.config)
    except UsageError as error:
        raise UsageError(f"{missing}, and its training rows cannot be read again: {error}\n  {advice}") from error
    if not _are_training_rows(trained, data):
        raise UsageError(
            f"{missing}, and the rows that its settings lead to are no longer those of its training\n  {advice}"
        )
    return method.fit(trained.objective, data.train)


def _are_training_rows(trained: Trained, data: build.Data) -> bool:
    """Whether rows read again have the schema, the sum of weights and the feature statistics of the training rows."""
    if data.schema.to_dict() != trained.schema.to_dict() or data.train.population != trained.objective.population:
        return False
    model: Any = trained.objective.model
    found = row_statistics(data.train, trained.schema.row_shape, data.source.standardize)
    # A model of tokens has none.
    known = (getattr(model, "mean", found[0]), getattr(model, "scale", found[1]))
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, known, strict=True))


def averaged_figures(
    objective: Objective, posterior: Uncertain, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """Figures of predictions averaged over the parameters, of all metrics that are defined on mixtures.

    Empty, with a warning, where the training rows leave the prediction of some rows undetermined.
    """
    tally = AveragedTally(objective, posterior, metrics)
    tally.add(rows)
    return tally.figures()


class AveragedTally:
    """Adds up blocks of rows, and computes figures of predictions averaged over uncertain parameters.

    Args:
        objective: the fitted objective.
        posterior: the uncertainty of its parameters.
        metrics: metrics; those that are not defined on mixtures (`Metric.is_averaged`) are left out.
    """

    def __init__(self, objective: Objective, posterior: Uncertain, metrics: Sequence[Metric]) -> None:
        self.objective, self.posterior, self._determined = objective, posterior, True
        self.sums = Accumulator([metric for metric in metrics if metric.is_averaged])

    def add(self, rows: Rows) -> None:
        """Add a block of rows."""
        if not self._determined:
            return
        try:
            for block in rows.blocks(_BLOCK):
                distribution = self.posterior.predictive(self.objective, block)
                self.sums.add(self.sums.of_block(distribution, block.y, block.weight))
        except UsageError as error:
            self._determined = False
            warn(str(error))

    def figures(self) -> dict[str, float]:
        """Finite figures over the rows added, by name; empty where a prediction was undetermined."""
        if not self._determined:
            return {}
        values = {name: float(value) for name, value in self.sums.figures().items()}
        return {name: value for name, value in values.items() if abs(value) < float("inf")}
