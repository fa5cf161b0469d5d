"""The parameter uncertainty of a run: kept in its checkpoint at the end of training, or computed from its own data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.metric.nll import Nll
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics
from mlefw.run import archive, build
from mlefw.run.checkpoint import Trained
from mlefw.run.directory import checkpoint_of
from mlefw.run.pooled import Pooled
from mlefw.system.atomic import Json
from mlefw.system.warning import warn
from mlefw.uncertainty.base import Method, Uncertain

_BLOCK = 4096


def keep_posterior(config: Settings, run_dir: Path, objective: Objective, splits: dict[str, Rows]) -> Json:
    """Store the posterior in the best checkpoint; what the summary says of it under the name of the method.

    Empty where none was asked for.
    A training that ends where there is no posterior is finished all the same, with a warning.
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
    return {method.name: found.facts() | _each(objective, found, held_out)}


def _each(objective: Objective, uncertain: Uncertain, splits: dict[str, Rows]) -> dict[str, dict[str, float]]:
    figures = {split: averaged_figures(objective, uncertain, rows, [Nll()]) for split, rows in splits.items()}
    return {split: values for split, values in figures.items() if values}


def posterior_of(trained: Trained, method: Method | None, stored: bool = False) -> Uncertain | None:
    """The parameter uncertainty of a trained run.

    Args:
        trained: the run.
        method: what to compute where the checkpoint does not hold it; None for no uncertainty at all.
        stored: whether to take one that is there without having been asked for it.

    Raises:
        UsageError: the run is recalibrated; or none is stored, and the run's own rows are not there or no longer
            those of its training; or an ensemble is asked for one.
    """
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
    missing = f"uncertainty={method.name}: {trained.path} does not hold the uncertainty of its parameters"
    advice = f"expected a run of `mlefw train {method.setting}`"
    try:
        data = build.build_data(trained.config)
    except UsageError as error:
        raise UsageError(f"{missing}, and its training rows cannot be read again: {error}\n  {advice}") from error
    if not _is_same(trained, data):
        raise UsageError(
            f"{missing}, and the rows that its settings lead to are no longer those of its training\n  {advice}"
        )
    return method.fit(trained.objective, data.train)


def _is_same(trained: Trained, data: build.Data) -> bool:
    """Whether rows read again have the columns, the weight and the feature statistics of the training rows."""
    if data.schema.to_dict() != trained.schema.to_dict() or data.train.population != trained.objective.population:
        return False
    model: Any = trained.objective.model
    found = feature_statistics(data.train, data.source.standardize)
    known = (model.mean, model.scale)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, known, strict=True))


def averaged_figures(
    objective: Objective, posterior: Uncertain, rows: Rows, metrics: Sequence[Metric]
) -> dict[str, float]:
    """The figures of metrics that are defined on mixtures, of predictions averaged over the parameters.

    Empty, with a warning, where the training rows leave the prediction of some rows undetermined.
    """
    tally = Averaged(objective, posterior, metrics)
    tally.add(rows)
    return tally.figures()


class Averaged:
    """Figures over blocks of rows, of predictions averaged over uncertain parameters.

    Args:
        objective: the fitted one.
        posterior: how far its parameters are uncertain.
        metrics: those that are not defined on mixtures (`Metric.is_averaged`) are left out.
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
        """Those over the rows added."""
        if not self._determined:
            return {}
        values = {name: float(value) for name, value in self.sums.figures().items()}
        return {name: value for name, value in values.items() if abs(value) < float("inf")}
