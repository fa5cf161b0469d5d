"""Judges whether a model is calibrated, and collects what `report.misfit` needs to say what to try instead."""

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
from mlefw.rows.tokens import TokenRows
from mlefw.run import build
from mlefw.score.recalibration import FITTED_ON
from mlefw.system.atomic import Json

_LARGE = 0.05
"""Parameters per row, from which on a prior is worth trying: with fewer it changes next to nothing."""


_AROUND = ("CensoredHead", "TruncatedHead", "HurdleHead")
"""Heads around another one, which is then the one to choose anew."""


def judge(
    config: Settings,
    objective: Objective,
    splits: Mapping[str, Rows],
    metrics: Mapping[str, Mapping[str, float]],
    observation: str = "row",
    num_units: Mapping[str, float] | None = None,
) -> Json | None:
    """The `misfit` of `summary.json`, or None where predictions are calibrated.

    Args:
        config: the settings of the run.
        objective: the model that predicts.
        splits: rows by split; their features are not read.
        metrics: the figures of the model by split.
        observation: what one observation is, in a word.
        num_units: by split the number of units that are independent of each other, where observations are not. Chance
            is judged as if there were so many observations, since there may be no more information in all of them.
    """
    population = {"train": objective.population} | {split: rows.population for split, rows in splits.items()}
    held = population.get(FITTED_ON, 0.0)
    population |= num_units or {}
    parts = list(splits.values())
    return misfit(metrics, population, lambda target: _chosen(config, objective, parts, held, target), observation)


def _chosen(config: Settings, objective: Objective, rows: Sequence[Rows], held: float, target: str) -> Chosen:
    """The choices of a run for one target, from which a remedy is derived; `held`: weight of the validation rows."""
    head, node, setting = objective.head, config.head, "head"
    # The tokens of a text are labels, of which no sign matters, and all of them may not fit into memory.
    y = torch.cat([part.y.double() for part in rows if not isinstance(part, TokenRows)] or [torch.zeros(1)])
    recalibrations: tuple[str, ...] = ()
    if isinstance(head, JointHead):
        y = y[:, list(head.targets).index(target)] if target in head.targets else y
        tasks = node.get("tasks") or {}
        node, setting = (tasks[target], f"head.tasks.{target}") if target in tasks else (node, setting)
    elif not any("_target_" in node for node in (config.calibrate, config.uncertainty)):
        recalibrations = _recalibrations(head, held)
    if isinstance(node.get("component"), dict) and node["_target_"].endswith(_AROUND):
        # The zeros of a hurdle are none of its component's.
        y = y[y > 0] if node["_target_"].endswith("HurdleHead") else y
        node, setting = node["component"], "head.component"
    known = y[~y.isnan()]
    is_positive = bool((known > 0).all())
    is_share = is_positive and bool((known < 1).all())
    size = sum(weight.numel() for weight in objective.model.parameters())
    is_large, has_prior = size > _LARGE * objective.population, not objective.prior.flat
    return Chosen(_name(node), node, setting, recalibrations, is_large, has_prior, is_positive, is_share)


@torch.no_grad()
def _recalibrations(head: Head, held: float) -> tuple[str, ...]:
    """Names of the recalibrations that suit the head's distribution and the validation rows, simplest first."""
    distribution = head(head.center.new_zeros(1, head.eta_dim))
    built = {name: build.build_calibration(node) for name, node in member_settings("calibrate").items()}
    # What is judged here, and measured in nats, is the density.
    known = {name: one for name, one in built.items() if one is None or one.changes_density}
    fitting = [name for name, one in known.items() if one and one.fits(distribution) and held >= max(1, one.min_rows)]
    return tuple(sorted(fitting, key=lambda name: _size(known[name])))


def _size(calibration: Calibration | None) -> tuple[int, int]:
    """How much a recalibration needs: (rows, parameters)."""
    if calibration is None:
        return 0, 0
    return calibration.min_rows, sum(part.numel() for part in calibration.buffers())


def _name(node: Mapping[str, Any]) -> str:
    """The name of a head in `head=`, derived from its class; the three Gaussian heads differ in the setting `scale`."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", str(node["_target_"]).rsplit(".", 1)[1].removesuffix("Head")).lower()
    if name != "gaussian":
        return name
    return {"shared": "gaussian", "predicted": "heteroscedastic"}.get(
        str(node.get("scale", "shared")), "gaussian_fixed"
    )
