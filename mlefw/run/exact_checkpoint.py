"""The exact estimate as a model of its own: its checkpoint, the covariance of its coefficients, and both read again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.mean_interval import CoefficientCovariance
from mlefw.baseline.predictor import as_objective
from mlefw.callback.stored_state import Content
from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.objective.objective import Objective
from mlefw.rows.dependence import Dependence
from mlefw.run import archive
from mlefw.run.checkpoint import Trained, card
from mlefw.run.pooled import Pooled
from mlefw.run.prepare import Prepared
from mlefw.run.stored_estimates import COVARIANCE, ESTIMATES, EXACT, restored, stored
from mlefw.score.yardstick import ExactEstimates

_LINEAR = {"_target_": "mlefw.model.linear.Linear"}
_UNUSED = ("inputs", "loss", "augment", "calibrate", "uncertainty", "ensemble")
_MOST = 2000
"""Coefficients up to which a covariance is stored: a matrix of 32 megabytes."""


def write(config: Settings, run_dir: Path, prepared: Prepared, exact: ExactEstimates, name: str) -> None:
    """Write `checkpoints/best.ckpt` of an exact estimate of a table, from which `predict` and `evaluate` work.

    Args:
        config: the settings of the command.
        run_dir: its directory.
        prepared: the rows and the objective.
        exact: the estimates.
        name: the one that becomes the model, `mle` or `map`.
    """
    solution, estimand = exact.solutions[name], prepared.estimand
    if not isinstance(solution, Solution) or not prepared.data.schema.row_shape.is_table:
        return
    model = as_objective(solution, estimand.objective)
    choices = {**config.choices, "model": "linear", "inputs": "standard", "loss": "plain"}
    plain = config.replaced(model=_LINEAR, choices=choices, **dict.fromkeys((*_UNUSED, "table", "glance")))
    described = archive.Archive(card(plain, prepared.data, prepared.data.train.population)).card
    estimates = stored(exact, estimand.objective, config.baseline.get("ridge_scale"))
    estimates[COVARIANCE] = covariances(exact, config.baseline, prepared.data.dependence)
    content: Content = {
        "state_dict": {f"objective.{key}": value for key, value in model.state_dict().items()},
        "mlefw": described,
        ESTIMATES: estimates,
        EXACT: name,
    }
    archive.write(run_dir / "checkpoints" / "best.ckpt", content)


def keep(
    path: Path, exact: ExactEstimates, objective: Objective, settings: Mapping[str, Any], dependence: Dependence
) -> None:
    """Add the exact estimates to the checkpoint of a run.

    Args:
        path: the checkpoint.
        exact: the estimates.
        objective: the objective of the run.
        settings: the section `baseline`.
        dependence: clusters and times of the training rows.
    """
    content = stored(exact, objective, settings.get("ridge_scale"))
    if found := covariances(exact, settings, dependence):
        content[COVARIANCE] = found
    archive.amend(path, **{ESTIMATES: content})


def covariances(
    exact: ExactEstimates, settings: Mapping[str, Any], dependence: Dependence
) -> dict[str, dict[str, Tensor]]:
    """The covariance of the coefficients of each linear estimate of a table, as tensors by name; of others none.

    Its kind is that of the standard errors of the section `baseline`, `settings`.
    """
    kind, found = settings.get("standard_errors", "default"), {}
    dependence = replace(dependence, lag=settings.get("lag"))
    for name, solution in exact.solutions.items():
        if not isinstance(solution, Solution) or not solution.may_exist or solution.parts:
            continue
        if solution.problem.features is not None or solution.problem.size > _MOST:
            continue
        errors = covariance(solution, kind, dependence)
        if isinstance(errors, Covariance):
            found[name] = dict(CoefficientCovariance.of(solution, errors)._asdict())
    return found


def with_errors(trained: Trained, of_estimate: bool) -> tuple[Trained, CoefficientCovariance | None]:
    """The model to predict with, and the covariance of its coefficients; None where it is not known.

    Args:
        trained: a trained run.
        of_estimate: whether to predict by the exact linear estimate beside the network, in place of the network.

    Raises:
        UsageError: the run has no exact estimate of a table, or the stored one is damaged.
    """
    if isinstance(trained, Pooled):
        if of_estimate:
            raise UsageError("exact=true is for one run: expected exact=false with several")
        return trained, None
    content = archive.read(trained.path)
    known, name = content.get(ESTIMATES) or {}, content.get(EXACT)
    if of_estimate and name is None:
        name = known.get("reference")
        if not isinstance(name, str) or not trained.schema.row_shape.is_table:
            raise UsageError(f"exact=true: {trained.path} holds no exact linear estimate of columns of a table")
        base = trained.uncalibrated or trained.objective
        model = restored(known, name, base, trained.path).requires_grad_(False)
        trained = replace(trained, objective=model, uncalibrated=None, calibration=None)
    errors = None if name is None else known.get(COVARIANCE, {}).get(name)
    return trained, None if errors is None else _checked(errors, trained.objective.head, trained)


def _checked(errors: Any, head: Head, trained: Trained) -> CoefficientCovariance:
    """A stored covariance, after checking that it fits the model."""
    damaged = UsageError(f"{trained.path}: the covariance of its coefficients is damaged")
    if not isinstance(errors, Mapping) or set(errors) != set(CoefficientCovariance._fields):
        raise damaged
    if not all(isinstance(value, Tensor) and bool(value.isfinite().all()) for value in errors.values()):
        raise damaged
    found = CoefficientCovariance(**errors)
    count, (width,) = len(trained.schema.names), found.active.shape or (0,)
    size = head.eta_dim * (width + 1) + head.shared_dim
    is_index = found.active.dtype == torch.int64 and bool(((found.active >= 0) & (found.active < count)).all())
    if found.matrix.shape != (size, size) or found.mean.shape != (count,) or found.scale.shape != (count,):
        raise damaged
    if not is_index or found.df.numel() != 1:
        raise damaged
    return found
