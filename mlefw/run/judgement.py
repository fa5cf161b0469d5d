"""Whether a model is calibrated on rows, with what to try instead: from a run to what `misfit` asks for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlefw.calibrate.base import Calibration
from mlefw.configuration.groups import member_settings
from mlefw.configuration.settings import Settings
from mlefw.head.base import Head
from mlefw.head.multitask import JointHead
from mlefw.objective.objective import Objective
from mlefw.report.misfit import misfit
from mlefw.report.remedy import Chosen
from mlefw.rows.rows import Rows
from mlefw.run import build
from mlefw.score.recalibration import FITTED_ON
from mlefw.system.atomic import Json

_SPARSE = 0.05
"""Parameters for each row, below which a prior on them changes next to nothing."""


def judge(
    config: Settings, objective: Objective, splits: Mapping[str, Rows], metrics: Mapping[str, Mapping[str, float]]
) -> Json | None:
    """The `misfit` of `summary.json`, or None where predictions are calibrated.

    Args:
        config: of the run.
        objective: the model that predicts.
        splits: the rows, without features where nobody else needs them.
        metrics: its figures on each of them.
    """
    population = {"train": objective.population} | {split: rows.population for split, rows in splits.items()}
    held = population.get(FITTED_ON, 0.0)
    return misfit(metrics, population, lambda target: _chosen(config, objective, list(splits.values()), held, target))


def _chosen(config: Settings, objective: Objective, rows: Sequence[Rows], held: float, target: str) -> Chosen:
    head, node, setting = objective.head, config.head, "head"
    y = torch.cat([part.y for part in rows])
    recalibrations: tuple[str, ...] = ()
    if isinstance(head, JointHead):
        y = y[:, list(head.targets).index(target)] if target in head.targets else y
        tasks = node.get("tasks") or {}
        node, setting = (tasks[target], f"head.tasks.{target}") if target in tasks else (node, setting)
    elif not any("_target_" in node for node in (config.calibrate, config.uncertainty)):
        recalibrations = _recalibrations(head, held)
    if isinstance(node.get("component"), dict) and node["_target_"].endswith("CensoredHead"):
        node, setting = node["component"], "head.component"
    known = y[~y.isnan()]
    is_positive = bool((known > 0).all())
    is_share = is_positive and bool((known < 1).all())
    size = sum(weight.numel() for weight in objective.model.parameters())
    is_large, has_prior = size > _SPARSE * objective.population, not objective.prior.flat
    return Chosen(_name(node), node, setting, recalibrations, is_large, has_prior, is_positive, is_share)


@torch.no_grad()
def _recalibrations(head: Head, held: float) -> tuple[str, ...]:
    """The members of `calibrate=` that take what a head predicts, and for which there are validation rows."""
    distribution = head(head.center.new_zeros(1, head.eta_dim))
    known = {name: build.build_calibration(node) for name, node in member_settings("calibrate").items()}
    fitting = [name for name, one in known.items() if one and one.fits(distribution) and held >= max(1, one.min_rows)]
    return tuple(sorted(fitting, key=lambda name: _size(known[name])))


def _size(calibration: Calibration | None) -> tuple[int, int]:
    """What a recalibration asks for: rows, then parameters; the simplest is tried first."""
    if calibration is None:
        return 0, 0
    return calibration.min_rows, sum(part.numel() for part in calibration.buffers())


def _name(node: Mapping[str, Any]) -> str:
    """What a head is called in `head=`, from its class: a Gaussian by where its scale comes from."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", str(node["_target_"]).rsplit(".", 1)[1].removesuffix("Head")).lower()
    if name != "gaussian":
        return name
    return {"shared": "gaussian", "predicted": "heteroscedastic"}.get(
        str(node.get("scale", "shared")), "gaussian_fixed"
    )
